"""What fuzzing starts from: small files of every kind, as other programs write them, and bodies of requests."""

import base64
import gzip
import io
import json
import os
import struct
import zipfile
import zlib
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from makers import dicom, encoded, mat, nifti, noise
from PIL import Image
from pydicom.data import get_testdata_file

from sslbt.data.matlab import USERBLOCK

REAL = Path(os.environ.get("SSLBT_FIGSHARE", Path.home() / "figshare"))  # where it is, its files are seeds too
GREY = noise(3, (24, 20)).astype(np.uint8)
DEEP = noise(4, (24, 20), 4000).astype(np.uint16)
DICOM = (  # of pydicom's own, each of another transfer syntax or maker
    "MR_small.dcm",
    "MR_small_implicit.dcm",
    "MR_small_bigendian.dcm",
    "MR_small_RLE.dcm",
    "MR_small_jp2klossless.dcm",
    "MR_small_jpeg_ls_lossless.dcm",
    "MR_small_padded.dcm",
    "JPEG-lossy.dcm",
    "JPGExtended.dcm",
    "JPEGLSNearLossless_08.dcm",
    "JPEGLSNearLossless_16.dcm",
    "JPEG2000.dcm",
    "693_J2KI.dcm",
    "SC_rgb_jpeg.dcm",
    "liver_1frame.dcm",
    "nested_priv_SQ.dcm",
)


def seeds(form: str) -> list[bytes]:
    """Inputs of one format that are read without complaint, most of them."""
    return SEEDS[form]() if form in SEEDS else [b"harm"]


def _mat() -> list[bytes]:
    mask = (noise(5) > 200).astype(np.uint8).T
    packed = {"compression": "gzip", "chunks": (16, 16)}
    return [
        mat(),
        mat(tumorMask=mask, image=noise(0).astype(np.float64).T),
        mat(image=lambda group, name: group.create_dataset(name, data=noise(1).T, shuffle=True, **packed)),
        *(_hollow(path) for path in sorted(REAL.glob("*1.mat"))[:3]),
    ]


def _hollow(path: Path) -> bytes:
    """A real slice, cut down: its pixels in the first few rows only, so that a mutation hits what lies around them."""
    data = bytearray(path.read_bytes())
    with h5py.File(path) as file:
        for field in file["cjdata"].values():
            if field.chunks and field.size > 1000:
                rows = np.zeros(field.chunks, field.dtype)
                rows.flat[:100] = np.arange(100)
                for number in range(field.id.get_num_chunks()):
                    found = field.id.get_chunk_info(number)
                    block = zlib.compress(rows.tobytes())
                    end = found.byte_offset + found.size
                    data[found.byte_offset : end] = block.ljust(found.size, b"\0")[: found.size]
    return bytes(data)


def _png() -> list[bytes]:
    frames = [Image.fromarray(GREY), Image.fromarray(GREY[::-1].copy())]
    animated = io.BytesIO()
    frames[0].save(animated, "PNG", save_all=True, append_images=frames[1:])
    rgba = np.dstack([GREY, GREY, GREY, np.full_like(GREY, 200)])
    return [
        encoded(GREY, "PNG"),
        encoded(DEEP, "PNG"),
        encoded(GREY > 99, "PNG"),
        encoded(rgba, "PNG", dpi=(90, 90)),
        _written(Image.fromarray(GREY).convert("P"), "PNG", transparency=3),
        _written(Image.fromarray(GREY).convert("LA"), "PNG"),
        interlaced(GREY),
        animated.getvalue(),
    ]


def interlaced(pixels: np.ndarray) -> bytes:
    """An 8-bit grey PNG in seven passes (ISO 15948, 8.2), which Pillow reads but does not write."""
    passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    rows = b"".join(
        b"\0" + row.tobytes() for y, x, down, right in passes for row in pixels[y::down, x::right] if row.size
    )
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 8, 0, 0, 0, 1)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def _written(picture: Image.Image, form: str, **how: object) -> bytes:
    out = io.BytesIO()
    picture.save(out, form, **how)
    return out.getvalue()


def _jpeg() -> list[bytes]:
    exif = Image.Exif()
    exif[0x010E] = "a slice"
    several = io.BytesIO()
    Image.fromarray(GREY).save(several, "MPO", save_all=True, append_images=[Image.fromarray(GREY[::-1].copy())])
    return [
        encoded(GREY, "JPEG"),
        encoded(GREY, "JPEG", progressive=True, quality=30),
        encoded(GREY, "JPEG", exif=exif, dpi=(90, 90), restart_marker_blocks=1),
        encoded(np.dstack([GREY] * 3), "JPEG", subsampling=2, icc_profile=b"none" * 9),
        _written(Image.fromarray(GREY).convert("CMYK"), "JPEG"),
        several.getvalue(),
    ]


def _tiff() -> list[bytes]:
    ways = ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")
    return [
        *(encoded(GREY, "TIFF", compression=way) for way in ways),
        encoded(DEEP, "TIFF", compression="tiff_lzw"),
        encoded(DEEP.astype(np.float32), "TIFF"),
        encoded(DEEP.astype(np.int32), "TIFF", compression="tiff_deflate"),
        *(encoded(GREY > 99, "TIFF", compression=way) for way in ("group3", "group4")),
        _written(Image.fromarray(GREY), "TIFF", big_tiff=True),
        _written(Image.fromarray(GREY), "TIFF", save_all=True, append_images=[Image.fromarray(GREY.T.copy())]),
        encoded(np.dstack([GREY] * 3), "TIFF", compression="tiff_lzw"),
    ]


def _dicom() -> list[bytes]:
    theirs = (Path(str(get_testdata_file(name, download=False))).read_bytes() for name in DICOM)
    plain = dicom(DEEP, "P1")
    head, pixels = plain[: plain.rindex(b"\xe0\x7f\x10\0")], plain[plain.rindex(b"\xe0\x7f\x10\0") :]
    level = b"\x28\0\x45\x91SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\0\xe0\xff\xff\xff\xff"  # a sequence, an item
    deep = head + 2000 * level + pixels
    return [plain, dicom(np.stack([DEEP, DEEP[::-1]])), deep, *theirs]


def _nifti() -> list[bytes]:
    volume = np.stack([DEEP.astype(np.int16), DEEP[::-1].astype(np.int16), DEEP.astype(np.int16) // 2])
    return [nifti(volume), gzip.decompress(nifti(volume)), gzip.decompress(nifti(volume[:1].astype(np.float32)))]


def files() -> dict[str, bytes]:
    """One small file of each kind, by name."""
    return {
        "glioma/P1/1.png": encoded(GREY, "PNG"),
        "glioma/P1/2.jpg": encoded(GREY[::-1], "JPEG"),
        "pituitary/P2/3.tif": encoded(DEEP, "TIFF"),
        "pituitary/P2/4.dcm": dicom(DEEP, "P2"),
        "cyst/P3/5.nii.gz": nifti(np.stack([DEEP.astype(np.int16)])),
        "6.mat": mat(),
    }


def zipped(contents: dict[str, bytes], how: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", how) as archive:
        for name, data in contents.items():
            archive.writestr(zipfile.ZipInfo(name), data, how)
    return out.getvalue()


def _zip() -> list[bytes]:
    small = {"glioma/P1/1.png": encoded(GREY, "PNG")}
    ways = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    climbing = ("../../evil.png", "/tmp/evil.png", "..\\..\\evil.png", "C:\\evil.png")
    return [
        zipped(files()),
        *(zipped(small, way) for way in ways),
        zipped({"in.zip": zipped(small), "x/2.png": encoded(DEEP, "PNG")}),
        zipped(dict.fromkeys(climbing, small["glioma/P1/1.png"])),
        zipped({"a.zip": zipped({"b.zip": zipped(small)})}),
    ]


def parquet(table: pa.Table, **how: object) -> bytes:
    out = io.BytesIO()
    pq.write_table(table, out, **how)
    return out.getvalue()


def _parquet() -> list[bytes]:
    names, data = [*files()], [*files().values()]
    texts = [base64.b64encode(one).decode() for one in data]
    return [
        parquet(pa.table({"image": data[:2], "file": names[:2]})),
        parquet(pa.table({"image": texts[:2]}), compression="zstd"),
        parquet(pa.table({"image": data, "path": names}), compression="none", use_dictionary=False, row_group_size=2),
        parquet(pa.table({"path": [*names, None, "../x.png"]}), compression="gzip", data_page_version="2.0"),
        parquet(pa.table({"file": names, "n": range(len(names))}), compression="brotli"),
    ]


def _encoded() -> list[str]:
    return [base64.b64encode(data).decode() for name, data in files().items() if name[-3:] in ("png", "dcm")]


def tensor(kind: str, shape: list[int], data: object) -> dict[str, object]:
    return {"name": "image", "datatype": kind, "shape": shape, "data": data}


def _v2_json() -> list[bytes]:
    texts, small = _encoded(), GREY[:17, :17]
    outputs = [{"name": "label"}, {"name": "probabilities", "parameters": {"binary_data": True}}]
    return [
        json.dumps(request).encode()
        for request in (
            {"inputs": [tensor("BYTES", [2], texts)], "id": "7"},
            {"inputs": [tensor("BYTES", [2, 1], texts)], "outputs": outputs},
            {"inputs": [tensor("UINT8", [17, 17], small.tolist())], "parameters": {"binary_data_output": True}},
            {"inputs": [tensor("FP32", [1, 17, 17], (small / 7).ravel().tolist())], "id": "a"},
        )
    ]


def _v2_binary() -> list[bytes]:
    """The length of the JSON as text and a line break, then JSON and tensor."""
    contents = [*files().values()]
    raw = b"".join(struct.pack("<I", len(data)) + data for data in contents[:2])
    bodies = (("BYTES", [2], raw), ("UINT8", [2, *GREY.shape], GREY.tobytes() * 2), ("FP16", [17, 17], bytes(578)))
    found = []
    for kind, shape, data in bodies:
        given = {"name": "image", "datatype": kind, "shape": shape, "parameters": {"binary_data_size": len(data)}}
        head = json.dumps({"inputs": [given], "outputs": [{"name": "label"}]}).encode()
        found.append(b"%d\n" % len(head) + head + data)
    return found


def _invocations() -> list[bytes]:
    texts, small = _encoded(), GREY[:17, :17].tolist()
    requests = (
        {"dataframe_split": {"columns": ["a", "image"], "data": [[1, texts[0]], [2, small]]}},
        {"dataframe_records": [{"image": text} for text in texts]},
        {"instances": [{"image": small}, {"image": None}]},
        {"instances": [small, small]},
        {"inputs": {"image": texts}},
    )
    return [json.dumps(request).encode() for request in requests]


def _form() -> list[bytes]:
    """The content type and a line break, then the body."""
    parts = b"".join(
        b'--x\r\nContent-Disposition: form-data; name="files"; filename="%s"\r\n\r\n%s\r\n' % (name.encode(), data)
        for name, data in files().items()
    )
    png = files()["glioma/P1/1.png"]
    return [b"multipart/form-data; boundary=x\n" + parts + b"--x--\r\n", b"image/png\n" + png, b"\n" + USERBLOCK]


SEEDS = {
    "mat": _mat,
    "zip": _zip,
    "png": _png,
    "jpeg": _jpeg,
    "tiff": _tiff,
    "dicom": _dicom,
    "nifti": _nifti,
    "parquet": _parquet,
    "v2_json": _v2_json,
    "v2_binary": _v2_binary,
    "invocations": _invocations,
    "form": _form,
}
