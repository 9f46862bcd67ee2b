"""The files in the body of an HTTP request."""

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from sslbt.errors import UserError


async def files(request: Request) -> list[tuple[str, bytes]]:
    """Name and content of the files of a multipart form, or of the bare body as one file named `body`.

    Raises:
        UserError: no file is in it, or the form is malformed.
    """
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        data = await request.body()
        if not data:
            raise UserError("the request holds no file; send one as the body or several as a multipart form")
        return [("body", data)]
    try:
        form = await MultiPartParser(request.headers, request.stream()).parse()
    except MultiPartException as error:
        raise UserError(f"the multipart form is malformed ({error.message})") from error
    try:
        uploads = [part for _, part in form.multi_items() if isinstance(part, UploadFile)]
        if not uploads:
            raise UserError("the form holds no file; send some as curl does with -F files=@slice.png")
        return [(upload.filename or "unnamed", await upload.read()) for upload in uploads]
    finally:
        await form.close()
