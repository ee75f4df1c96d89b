"""How many operations a second can a device do, at most? The denominator of MFU."""

from vlm_catalogs.config import Config

TERA = 10**12
PEAK_TFLOPS = {
    "A100": 312.0,
    "A10": 125.0,
    "L40S": 362.0,
    "L4": 121.0,
    "H100 PCIe": 756.0,
    "H100": 989.0,
    "H200": 989.0,
    "GH200": 989.0,
    "B200": 2250.0,
}
"""Piece of a CUDA device's name -> dense bfloat16 tera-operations a second, from NVIDIA's data sheets."""


def peak_of(config: Config, device_name: str) -> float | None:
    """Operations a second of one device: ``[logging] peak_tflops``, else by its name; None where nobody knows.

    The longest piece that the name has counts: an H100 PCIe is slower than others.
    """
    if config.logging.peak_tflops is not None:
        return config.logging.peak_tflops * TERA
    words = f" {device_name.replace('-', ' ')} "
    found = [piece for piece in PEAK_TFLOPS if f" {piece} " in words]
    return PEAK_TFLOPS[max(found, key=len)] * TERA if found else None
