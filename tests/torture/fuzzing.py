"""Coverage-guided fuzzing of one format in a process of its own: `python fuzzing.py FORMAT OPTIONS-OF-LIBFUZZER`.

libFuzzer sees crashes of native code and what never ends, keeps the input, and mutates; here is what else must not be.
"""

import random
import re
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import atheris

SECONDS = 2.0  # of processor time, since other processes may hold this one up
MEMORY = 2**30  # bytes above what the process takes idle
GUIDED = {  # modules in Python that parse: what of them is reached guides the mutations
    "dicom": ["pydicom.filereader", "pydicom.filebase", "pydicom.encaps", "pydicom.values", "pydicom.pixels"],
    "png": ["PIL.PngImagePlugin"],
    "jpeg": ["PIL.JpegImagePlugin", "PIL.MpoImagePlugin", "PIL.TiffImagePlugin"],
    "tiff": ["PIL.TiffImagePlugin"],
    "nifti": ["nibabel.nifti1", "nibabel.analyze", "nibabel.wrapstruct"],
    "zip": ["zipfile"],
    "form": ["multipart", "starlette.formparsers"],
}


def main() -> None:
    form, *options = sys.argv[1:]
    guided = ["sslbt.data", "serve", *GUIDED.get(form, [])]
    with nullcontext() if "-guided=0" in options else atheris.instrument_imports(include=guided):
        from fuzz_targets import target, watch_writes
    from fuzz_mutators import mutate

    tried = target(form)
    watch_writes(Path.cwd().resolve())
    idle = _peak()

    def once(data: bytes) -> None:
        began = time.process_time()
        tried(data)
        seconds, memory = time.process_time() - began, _peak() - idle
        assert seconds < SECONDS, f"{seconds:.1f} s"
        assert memory < MEMORY, f"{memory / 2**20:.0f} MiB"

    def mutated(data: bytes, most: int, seed: int) -> bytes:
        return mutate(form, data, random.Random(seed), lambda part: atheris.Mutate(part, len(part) + 64))[:most]

    options = [option for option in options if not option.startswith("-guided")]
    atheris.Setup([sys.argv[0], *options], once, custom_mutator=mutated)
    atheris.Fuzz()


def _peak() -> int:
    """Bytes of memory that this program has ever taken; what getrusage tells begins with what started it."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 2**10


if __name__ == "__main__":
    main()
