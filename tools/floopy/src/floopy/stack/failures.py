"""What keeps `floopy up` from running and is told to the person, not shown as a traceback."""

from pydantic import ValidationError

from floopy.backends.backend import BackendMissingError
from floopy.backends.topics import PartitionCountError
from floopy.stack.data_dir import DataDirInUseError
from floopy.stack.ports import PortTakenError
from floopy.stack.services import ScriptMissingError
from floopy.stack.supervisor import CrashLoopError, NotReadyError
from floopy_common.domain.errors import FloopyError

FAILURES = (
    BackendMissingError,
    CrashLoopError,
    DataDirInUseError,
    FloopyError,
    NotReadyError,
    PartitionCountError,
    PortTakenError,
    ScriptMissingError,
    ValidationError,  # a setting
)
