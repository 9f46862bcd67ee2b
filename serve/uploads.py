"""The body of an HTTP request, never more of it than allowed."""

from collections.abc import AsyncGenerator

from fastapi import HTTPException, Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from sslbt.errors import UserError


async def files(request: Request, max_bytes: int) -> list[tuple[str, bytes]]:
    """Name and content of the files of a multipart form, or of the bare body as one file named `body`.

    Raises:
        UserError: no file is in it, or the form is malformed.
        HTTPException: 413, more than `max_bytes`.
    """
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        data = await body(request, max_bytes)
        if not data:
            raise UserError("the request holds no file; send one as the body or several as a multipart form")
        return [("body", data)]
    try:
        form = await MultiPartParser(request.headers, _limited(request, max_bytes)).parse()
    except MultiPartException as error:
        raise UserError(f"the multipart form is malformed ({error.message})") from error
    try:
        uploads = [part for _, part in form.multi_items() if isinstance(part, UploadFile)]
        if not uploads:
            raise UserError("the form holds no file; send some as curl does with -F files=@slice.png")
        return [(upload.filename or "unnamed", await upload.read()) for upload in uploads]
    finally:
        await form.close()


async def body(request: Request, max_bytes: int) -> bytes:
    """The whole body.

    Raises:
        HTTPException: 413, more than `max_bytes`.
    """
    return b"".join([part async for part in _limited(request, max_bytes)])


async def _limited(request: Request, max_bytes: int) -> AsyncGenerator[bytes, None]:
    stated = request.headers.get("content-length", "0")
    received = int(stated) if stated.isdecimal() and int(stated) > max_bytes else 0
    async for part in request.stream():
        received += len(part)
        if received > max_bytes:
            size = f"{max_bytes / 2**20:g} MiB"
            raise HTTPException(413, f"the request is larger than {size}; send fewer or smaller files at a time")
        yield part
