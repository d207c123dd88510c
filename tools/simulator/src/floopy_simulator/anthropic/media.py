"""Images and documents: where they may come from, and whether the bytes are what they are said to be."""

import binascii
from base64 import b64decode

from floopy_simulator.anthropic.errors import ApiError, invalid
from floopy_simulator.anthropic.message_request import (
    Document,
    Image,
    ImageBytes,
    Link,
    Passages,
    PdfBytes,
    PlainText,
    StoredFile,
    Text,
)

MAX_IMAGE = 10 * 1024 * 1024
"""Characters of an image in base64."""
SIGNATURES = {
    b"\xff\xd8\xff": "image/jpeg",
    b"\x89PNG\r\n": "image/png",
    b"GIF8": "image/gif",
}
IMAGE_TOKENS = 1_600
BYTES_PER_PDF_CHARACTER = 5
SECURE = "https://"


def check_image(image: Image, path: str) -> int:
    """Returns its tokens."""
    source = image.source
    if isinstance(source, Link):
        _check_link(source, f"{path}.image.source.url")
    elif isinstance(source, StoredFile):
        raise _no_such_file(source)
    else:
        _check_image_bytes(source, f"{path}.image.source.base64")
    return IMAGE_TOKENS


def check_document(document: Document, path: str) -> int:
    """Returns the characters it counts for."""
    source, path = document.source, f"{path}.document.source"
    if isinstance(source, StoredFile):
        raise _no_such_file(source)
    if isinstance(source, Link):
        _check_link(source, f"{path}.url")
        return 0
    if isinstance(source, PdfBytes):
        return len(_decode(source.data, f"{path}.base64.data")) // BYTES_PER_PDF_CHARACTER
    if isinstance(source, PlainText):
        _require_text(source.data, f"{path}.text.data")
        return len(source.data)
    return _check_passages(source, f"{path}.content.content")


def _check_passages(source: Passages, path: str) -> int:
    if isinstance(source.content, str):
        _require_text(source.content, path)
        return len(source.content)
    if not source.content:
        raise invalid(f"{path}: List should have at least 1 item after validation")
    characters = 0
    for number, block in enumerate(source.content):
        if isinstance(block, Text):
            _require_text(block.text, f"{path}.{number}.text")
            characters += len(block.text)
        else:
            check_image(block, f"{path}.{number}")
    return characters


def _check_image_bytes(source: ImageBytes, path: str) -> None:
    if len(source.data) > MAX_IMAGE:
        raise invalid(f"{path}: image exceeds 10 MB maximum: {len(source.data)} bytes > {MAX_IMAGE} bytes")
    content = _decode(source.data, f"{path}.data")
    seen = _recognise(content)
    if seen is not None and seen != source.media_type:
        raise invalid(
            f"{path}: The image was specified using the {source.media_type} media type, "
            f"but the image appears to be a {seen} image"
        )


def _recognise(content: bytes) -> str | None:
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for mark, kind in SIGNATURES.items() if content.startswith(mark)), None)


def _decode(data: str, path: str) -> bytes:
    try:
        content = b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid(f"{path}: invalid base64 data") from error
    if not content:
        raise invalid(f"{path}: String should have at least 1 character")
    return content


def _check_link(source: Link, path: str) -> None:
    if not source.url.startswith(SECURE) or len(source.url) == len(SECURE):
        raise invalid(f"{path}: Only HTTPS URLs are supported.")


def _require_text(text: str, path: str) -> None:
    if not text.strip():
        raise invalid(f"{path}: text content blocks must be non-empty")


def _no_such_file(source: StoredFile) -> ApiError:
    return ApiError(404, f"File not found: {source.file_id}")
