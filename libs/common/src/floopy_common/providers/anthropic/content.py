"""Content parts of messages: text, images and files become blocks, whatever cannot be one is refused."""

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from floopy_common.providers.anthropic import refusal
from floopy_common.providers.anthropic.capabilities import Capabilities
from floopy_common.providers.anthropic.chat import (
    AudioPart,
    FilePart,
    FileRef,
    ImagePart,
    RefusalPart,
    TextPart,
)
from floopy_common.providers.anthropic.policy import StoredFile
from floopy_common.providers.anthropic.wire import (
    CACHED,
    Base64Source,
    Block,
    DocumentBlock,
    ImageBlock,
    PlainSource,
    TextBlock,
    UrlSource,
)

IMAGE_TYPES = ("image/jpeg", "image/png", "image/gif", "image/webp")
MAX_IMAGE_BYTES = 10 * 1024 * 1024
"""Of one image, encoded."""
MAX_BREAKPOINTS = 4

_PDF = "application/pdf"
_TEXT = "text/plain"
_SAME_TYPE = {"image/jpg": "image/jpeg"}
_BY_SUFFIX = {".pdf": _PDF, ".txt": _TEXT, ".csv": _TEXT, ".md": _TEXT}
_DATA_URI = re.compile(r"data:(?P<type>[^;,]*)(?P<parameters>(?:;[^;,]*)*),", re.IGNORECASE)


class Cacheable(Protocol):
    cache_control: Any


Part = TextPart | RefusalPart | ImagePart | AudioPart | FilePart


class Blocks:
    """Makes the blocks of one request; keeps count of what a request may only have so much of."""

    def __init__(self, capabilities: Capabilities, files: Mapping[str, StoredFile]) -> None:
        self._capabilities = capabilities
        self._files = files
        self._images = 0
        self._marked: list[Cacheable] = []

    def of(self, content: str | Iterable[Part] | None, param: str) -> list[Any]:
        """The blocks of a message's content; text that is blank makes none."""
        if content is None or isinstance(content, str):
            return [TextBlock(text=content)] if content and not content.isspace() else []
        blocks: list[Block] = []
        for number, part in enumerate(content):
            block = self._of_part(part, f"{param}[{number}]")
            if block is not None:
                self.mark(block, part)
                blocks.append(block)
        return blocks

    def mark(self, block: Cacheable, part: Part) -> None:
        """Make the block a cache breakpoint when the part is one."""
        if not isinstance(part, RefusalPart) and part.prompt_cache_breakpoint is not None:
            block.cache_control = CACHED
            self._marked.append(block)

    def finish(self) -> bool:
        """Keep the last breakpoints, as many as a request may have; whether there is any."""
        for block in self._marked[:-MAX_BREAKPOINTS]:
            block.cache_control = None
        return bool(self._marked)

    def _of_part(self, part: Part, param: str) -> Block | None:
        match part:
            case TextPart():
                return TextBlock(text=part.text) if part.text and not part.text.isspace() else None
            case RefusalPart():
                return TextBlock(text=part.refusal) if part.refusal and not part.refusal.isspace() else None
            case ImagePart():
                return self._image(part.image_url.url, f"{param}.image_url.url")
            case FilePart():
                return self._file(part.file, f"{param}.file")
            case AudioPart():
                raise refusal.unsupported_value(f"{param}.type", "does not support audio with this model.")

    def _image(self, url: str, param: str) -> Block:
        if url[:8].lower() == "https://":
            self._count_image(param)
            return ImageBlock(source=UrlSource(url))
        if url[:5].lower() != "data:":
            raise refusal.invalid_value(param, "it must be an https URL or a base64 data URI.")
        media_type, data = _open_data_uri(url, param)
        if media_type == _PDF:
            return self._pdf(data, None, param)
        if media_type not in IMAGE_TYPES:
            raise refusal.invalid_value(param, f"images may be {', '.join(IMAGE_TYPES)}.")
        if len(data) > MAX_IMAGE_BYTES:
            raise refusal.invalid_value(param, f"an image may have {MAX_IMAGE_BYTES} base64 bytes at most.")
        _decode(data, param)
        self._count_image(param)
        return ImageBlock(source=Base64Source(media_type, data))

    def _count_image(self, param: str) -> None:
        if not self._capabilities.images:
            raise refusal.unsupported_value(param, "does not support images with this model.")
        self._images += 1
        if self._images > self._capabilities.max_images:
            most = self._capabilities.max_images
            raise refusal.invalid_value(param, f"a request may have {most} images at most with this model.")

    def _file(self, file: FileRef, param: str) -> Block:
        if (file.file_id is None) == (file.file_data is None):
            raise refusal.invalid_value(param, "exactly one of file_id and file_data must be given.")
        if file.file_id is not None:
            return self._stored(file.file_id, f"{param}.file_id")
        assert file.file_data is not None  # noqa: S101 - one of the two is there
        return self._inline(file.file_data, file.filename, f"{param}.file_data")

    def _stored(self, file_id: str, param: str) -> Block:
        stored = self._files.get(file_id)
        if stored is None:
            raise refusal.invalid_value(param, f"no file '{file_id}' exists in this organization.")
        if stored.limit is not None:
            raise refusal.invalid_value(param, f"a request's files may have {stored.limit} bytes at most.")
        media_type = _media_type(stored.media_type, stored.filename, stored.content[:4])
        if media_type == _PDF:
            return self._pdf(base64.b64encode(stored.content).decode(), stored.filename, param)
        return _text(stored.content, media_type, stored.filename, param)

    def _inline(self, file_data: str, filename: str | None, param: str) -> Block:
        said, data = None, file_data
        if file_data[:5].lower() == "data:":
            said, data = _open_data_uri(file_data, param)
        content = _decode(data, param)
        media_type = _media_type(said, filename, content[:4])
        if media_type == _PDF:
            return self._pdf(data, filename, param)
        return _text(content, media_type, filename, param)

    def _pdf(self, data: str, title: str | None, param: str) -> Block:
        if not self._capabilities.pdfs:
            raise refusal.unsupported_value(param, "does not support PDF documents with this model.")
        _decode(data, param)
        return DocumentBlock(source=Base64Source(_PDF, data), title=title or None)


def _open_data_uri(uri: str, param: str) -> tuple[str, str]:
    """Media type and base64 text."""
    found = _DATA_URI.match(uri)
    if found is None or not found["parameters"].lower().endswith(";base64"):
        raise refusal.invalid_value(param, "a data URI must be `data:<media type>;base64,<data>`.")
    media_type = found["type"].strip().lower()
    return _SAME_TYPE.get(media_type, media_type), uri[found.end() :]


def _decode(data: str, param: str) -> bytes:
    try:
        content = binascii.a2b_base64(data, strict_mode=True)
    except ValueError as error:
        raise refusal.invalid_value(param, "it is not valid base64.") from error
    if not content:
        raise refusal.invalid_value(param, "it is empty.")
    return content


def _media_type(said: str | None, filename: str | None, start: bytes) -> str:
    """What a file is: as it was declared, else by its name, else by how it begins."""
    declared = (said or "").partition(";")[0].strip().lower()
    if declared and declared != "application/octet-stream":
        return declared
    dot = (filename or "").rfind(".")
    named = _BY_SUFFIX.get((filename or "")[dot:].lower(), "") if dot >= 0 else ""
    return named or (_PDF if start == b"%PDF" else "")


def _text(content: bytes, media_type: str, title: str | None, param: str) -> Block:
    if not media_type.startswith("text/"):
        raise refusal.invalid_value(param, "files may be PDF documents or plain text (txt, csv, md).")
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise refusal.invalid_value(param, "its text is not UTF-8.") from error
    if not text or text.isspace():
        raise refusal.invalid_value(param, "it is empty.")
    return DocumentBlock(source=PlainSource(_TEXT, text), title=title or None)
