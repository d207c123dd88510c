"""Every setting of the product: environment variables with the prefix FLOOPY_, nested by `__`."""

import tempfile
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

MIB = 1024 * 1024


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class MongoSettings(_Group):
    uri: str = Field(
        default="mongodb://127.0.0.1:27017/?replicaSet=rs0", description="A replica set's connection string."
    )
    database: str = Field(default="floopy", description="Database that holds every collection.")
    max_pool_size: int = Field(default=50, ge=1, description="Connections one process may hold.")
    timeout: float = Field(
        default=30.0, gt=0, description="Seconds a database call may take before it fails."
    )


class KafkaSettings(_Group):
    bootstrap_servers: str = Field(
        default="127.0.0.1:9092", description="Comma-separated brokers to connect to first."
    )
    topic_prefix: str = Field(default="", description="Put before every topic name, for shared clusters.")
    idempotent: bool = Field(
        default=True, description="Idempotent producer; off only for the embedded broker, which cannot do it."
    )
    partitions: int = Field(
        default=4, ge=1, description="Partitions of every topic; services refuse another count."
    )
    replication: int = Field(
        default=1, ge=1, description="Replicas of every topic when the topics job creates it."
    )
    max_message_bytes: int = Field(
        default=1_000_000, ge=65_536, description="Largest record a topic takes, in bytes."
    )
    send_timeout: float = Field(
        default=30.0, gt=0, description="Seconds to wait for the broker's acknowledgement."
    )
    session_timeout: float = Field(
        default=10.0, gt=0, description="Seconds after which a silent consumer is replaced."
    )
    compression: Literal["none", "zstd"] = Field(default="none", description="Compression of line events.")


class ProviderSettings(_Group):
    base_url: str = Field(description="Where accounts without a base URL of their own are reached.")
    version: str | None = Field(default=None, description="API version header, where the provider has one.")


class AnthropicModelSettings(_Group):
    """What an operator says of a model; what is not said is the bundled row's or the Models API's."""

    id: str | None = Field(default=None, description="Model id to send when a request names this model.")
    max_output: int | None = Field(default=None, ge=1, description="Largest max_tokens.")
    context: int | None = Field(default=None, ge=1, description="Context window in tokens.")
    thinking: frozenset[Literal["adaptive", "enabled", "disabled", "between_tools"]] | None = Field(
        default=None, description="Values of thinking.type it takes."
    )
    thinking_default: Literal["off", "on", "always"] | None = Field(
        default=None, description="Whether it thinks when it is not told."
    )
    effort: frozenset[Literal["low", "medium", "high", "xhigh", "max"]] | None = Field(
        default=None, description="Efforts it takes."
    )
    sampling: bool | None = Field(default=None, description="Whether it takes temperature and top_p.")
    forced_tools: Literal["yes", "not_with_manual_thinking", "no"] | None = Field(
        default=None, description="Whether a tool call can be demanded."
    )
    mid_system: bool | None = Field(
        default=None, description="Whether it takes system messages inside a conversation."
    )
    structured_outputs: bool | None = Field(default=None, description="Whether it keeps to a JSON schema.")
    images: bool | None = Field(default=None, description="Whether it reads images.")
    pdfs: bool | None = Field(default=None, description="Whether it reads PDF documents.")


class AnthropicSettings(ProviderSettings):
    base_url: str = Field(
        default="https://api.anthropic.com",
        description="Where accounts without a base URL of their own are reached.",
    )
    version: str | None = Field(
        default="2023-06-01",
        description="API version header; from 2026-10-21 on no model takes temperature or top_p.",
    )
    unsupported: Literal["reject", "drop"] = Field(
        default="reject",
        description="A parameter the model lacks: `reject` refuses the line, `drop` leaves it out.",
    )
    forced_tool_choice: Literal["reject", "auto"] = Field(
        default="reject",
        description="A demanded tool call the model refuses: `reject` refuses the line, `auto` frees it.",
    )
    auto_cache: bool = Field(
        default=False,
        description="Cache what lines share (system, tools) for an hour; writing it costs twice its input.",
    )
    shard_lines: int = Field(
        default=5_000,
        ge=1,
        le=100_000,
        description="Most requests of a message batch; its counts show at its end.",
    )
    shard_bytes: int = Field(
        default=64_000_000, ge=1, le=256_000_000, description="Most bytes of a message batch's requests."
    )
    file_bytes: int = Field(
        default=20 * MIB, ge=0, description="Most bytes of files that one request may refer to by id."
    )
    models: dict[str, AnthropicModelSettings] = Field(
        default_factory=dict,
        description="By model name, as JSON: the id to send, and what goes over all that is known of it.",
    )
    models_ttl: float = Field(
        default=3_600.0,
        ge=0,
        description="Seconds that what an account's GET /v1/models says is remembered; 0: it is not asked.",
    )
    models_wait: float = Field(
        default=2.0,
        ge=0,
        description="Seconds a plan waits for that answer before it goes by what is known already.",
    )


class ProvidersSettings(_Group):
    openai: ProviderSettings = Field(
        default=ProviderSettings(base_url="https://api.openai.com/v1"),
        description="OpenAI; the base URL ends in /v1.",
    )
    anthropic: AnthropicSettings = Field(
        default=AnthropicSettings(),
        description="Anthropic; the base URL comes without /v1.",
    )
    allowed_base_urls: list[str] = Field(
        default_factory=list, description="Base URLs that organisations may set on their own accounts."
    )


class ApiSettings(_Group):
    host: str = Field(default="127.0.0.1", description="Address the public API listens on.")
    port: int = Field(default=8080, ge=0, le=65535, description="Port of the public API; 0 picks a free one.")
    refresh_wait: float = Field(
        default=1.0, ge=0, description="Seconds GET /v1/batches/{id} waits for a fresh look."
    )
    refresh_after: float = Field(
        default=0.25, ge=0, description="A look younger than this many seconds is fresh."
    )
    key_cache: float = Field(
        default=30.0, ge=0, description="Seconds a positive API key look-up is remembered."
    )
    org_cache: float = Field(
        default=2.0,
        ge=0,
        description="Seconds an organisation's plan and accounts are remembered for creates.",
    )
    finished_cache: float = Field(
        default=2.0, ge=0, description="Seconds the answer about a finished, balanced batch is remembered."
    )
    uploads_per_minute: int = Field(
        default=6_000,
        ge=0,
        description="Uploads and parts an organisation may begin a minute, each process; 0: any.",
    )
    uploads_at_once: int = Field(
        default=64, ge=0, description="Uploads and parts of an organisation under way, each process; 0: any."
    )
    creates_per_minute: int = Field(
        default=60_000, ge=0, description="Batches an organisation may create a minute, each process; 0: any."
    )
    creates_at_once: int = Field(
        default=256, ge=0, description="Creates of an organisation under way, each process; 0: any."
    )


class LeaseSettings(_Group):
    ttl: float = Field(default=15.0, gt=0, description="Seconds a lease lives without a heartbeat.")


class SubmitSettings(_Group):
    create_timeout: float = Field(
        default=120.0, gt=0, description="Seconds a provider's create call may take."
    )
    settle_window: float = Field(
        default=300.0, gt=0, description="Seconds an unknown create is looked for before it is tried anew."
    )
    settle_looks: int = Field(
        default=3, ge=1, description="Successful looks needed before an unknown create is tried anew."
    )
    max_attempts: int = Field(
        default=3, ge=1, description="Attempts whose outcome stayed unknown before an operator must act."
    )
    concurrency: int = Field(
        default=16,
        ge=1,
        description="Shards one submitter submits at the same time; of those larger than 1 MiB four at most.",
    )
    clock_skew: float = Field(
        default=60.0, ge=0, description="Seconds the provider's clock may differ from ours."
    )
    sweep_for: float = Field(
        default=25 * 3600.0, ge=0, description="Seconds abandoned attempts are still looked for."
    )


class WaitingSettings(_Group):
    min: float = Field(
        default=5.0, gt=0, description="First wait of a shard the provider has no room for, in seconds."
    )
    max: float = Field(default=300.0, gt=0, description="Longest wait between two tries, in seconds.")
    queue_full: Literal["wait", "fail"] = Field(
        default="wait",
        description="What becomes of a shard that the provider's limits on enqueued tokens or requests leave "
        "no room for: it waits, or it fails with `token_limit_exceeded` as it does at OpenAI.",
    )


class BatchSettings(_Group):
    completion_window: float = Field(
        default=86_400.0, gt=0, description="Seconds a batch has before it expires."
    )
    allow_mixed_models: bool = Field(
        default=False,
        description="Whether a file may name several models; OpenAI refuses it, with `mismatched_model`.",
    )
    expiry_grace: float = Field(
        default=600.0, ge=0, description="Seconds an expired batch waits for its provider batches."
    )
    cancel_grace: float = Field(
        default=600.0, ge=0, description="Seconds a cancelled batch waits for its provider batches."
    )


class SegmentSettings(_Group):
    max_lines: int = Field(default=5_000, ge=1, le=5_000, description="Most lines of a segment.")
    max_bytes: int = Field(
        default=16 * MIB, ge=1, description="Most input bytes of a segment (a longer line stands alone)."
    )


class ShardSettings(_Group):
    max_lines: int = Field(default=50_000, ge=1, description="Most lines of a provider batch.")
    max_bytes: int = Field(default=200_000_000, ge=1, description="Most bytes of a provider batch's input.")


class RetrySettings(_Group):
    max: int = Field(
        default=3, ge=0, description="Times a line that failed for a passing reason is tried again."
    )
    min_window_left: float = Field(
        default=3_600.0, ge=0, description="Seconds the window must still have for another try."
    )


class PollSettings(_Group):
    min: float = Field(
        default=1.0, gt=0, description="Shortest interval between two looks at a provider batch, in seconds."
    )
    max: float = Field(default=60.0, gt=0, description="Longest interval between two looks, in seconds.")
    scan: float = Field(default=0.1, gt=0, description="Seconds between two scans for due looks.")
    concurrency: int = Field(
        default=16, ge=1, description="Provider batches one reconciler looks at at the same time."
    )
    listing_from: int = Field(
        default=8, ge=2, description="Due looks of an account from which on its list of batches is read."
    )


class SettleSettings(_Group):
    concurrency: int = Field(
        default=4, ge=1, description="Provider batches one reconciler collects at the same time."
    )
    downloads: int = Field(
        default=5, ge=0, description="Times results that lack lines are fetched again before they count."
    )
    file_looks: int = Field(
        default=10, ge=0, description="Times a results file that is not there is asked for again."
    )
    max_result: int = Field(
        default=4 * 1024 * MIB, ge=1, description="Largest results file taken from a provider, in bytes."
    )
    scratch: int = Field(
        default=4 * 1024 * MIB, ge=1, description="Bytes of archives kept on this machine's disk."
    )
    render_process: bool = Field(
        default=True,
        description="Render large segments in a process beside the reconciler: on a second core.",
    )


class ScanSettings(_Group):
    interval: float = Field(
        default=2.0, gt=0, description="Seconds between two scans for work that no event announced."
    )


class AuditSettings(_Group):
    interval: float = Field(
        default=1.0, gt=0, description="Seconds between two audits of a batch that is not balanced."
    )
    backoff_min: float = Field(
        default=30.0, gt=0, description="First wait before a segment is emitted once more."
    )
    backoff_max: float = Field(
        default=3_600.0, gt=0, description="Longest wait between two emissions or recounts."
    )


class RetentionSettings(_Group):
    content: float = Field(
        default=30 * 86_400.0, gt=0, description="Seconds content is kept after a batch has ended."
    )


class SweepSettings(_Group):
    age: float = Field(
        default=86_400.0, gt=0, description="Seconds before something nobody refers to is removed."
    )


class FilesSettings(_Group):
    max_bytes: int = Field(default=200 * MIB, ge=1, description="Largest upload in one request, in bytes.")


class UploadsSettings(_Group):
    max_bytes: int = Field(
        default=8 * 1024 * MIB, ge=1, description="Largest file uploaded in parts, in bytes."
    )
    max_part_bytes: int = Field(default=64 * MIB, ge=1, description="Largest part of an upload, in bytes.")
    lifetime: float = Field(
        default=3_600.0, gt=0, description="Seconds an upload has to be completed before it expires."
    )


class SupervisorSettings(_Group):
    max_deaths: int = Field(
        default=5, ge=1, description="Deaths before readiness, within the window, that stop `floopy up`."
    )
    window: float = Field(default=60.0, gt=0, description="Seconds over which those deaths are counted.")


class Settings(BaseSettings):
    """All groups; a service reads what it needs and ignores the rest."""

    model_config = SettingsConfigDict(
        env_prefix="FLOOPY_", env_nested_delimiter="__", frozen=True, extra="ignore"
    )

    mongo: MongoSettings = Field(default=MongoSettings(), description="The database.")
    kafka: KafkaSettings = Field(default=KafkaSettings(), description="The broker.")
    providers: ProvidersSettings = Field(default=ProvidersSettings(), description="The providers.")
    secret_key: SecretStr = Field(
        default=SecretStr(""), description="Secret all keys are derived from; at least 32 characters."
    )
    api: ApiSettings = Field(default=ApiSettings(), description="The public API.")
    metrics_host: str = Field(default="127.0.0.1", description="Address of probes and metrics.")
    metrics_port: int = Field(
        default=0, ge=0, le=65535, description="Port of probes and metrics; 0 picks a free one."
    )
    lease: LeaseSettings = Field(default=LeaseSettings(), description="Leases of workers.")
    submit: SubmitSettings = Field(default=SubmitSettings(), description="Creating provider batches.")
    waiting: WaitingSettings = Field(default=WaitingSettings(), description="Waiting for room at a provider.")
    batch: BatchSettings = Field(default=BatchSettings(), description="Windows of a batch.")
    segment: SegmentSettings = Field(default=SegmentSettings(), description="Size of segments.")
    shard: ShardSettings = Field(default=ShardSettings(), description="Size of shards.")
    retry: RetrySettings = Field(default=RetrySettings(), description="Lines worth another try.")
    poll: PollSettings = Field(default=PollSettings(), description="Looking at provider batches.")
    settle: SettleSettings = Field(default=SettleSettings(), description="Collecting results.")
    scan: ScanSettings = Field(default=ScanSettings(), description="Scans behind the events.")
    audit: AuditSettings = Field(default=AuditSettings(), description="The audit.")
    retention: RetentionSettings = Field(default=RetentionSettings(), description="How long content is kept.")
    sweep: SweepSettings = Field(default=SweepSettings(), description="Removing what nobody refers to.")
    files: FilesSettings = Field(default=FilesSettings(), description="Uploads.")
    uploads: UploadsSettings = Field(default=UploadsSettings(), description="Uploads in parts.")
    supervisor: SupervisorSettings = Field(default=SupervisorSettings(), description="`floopy up`.")
    fail_at: str | None = Field(
        default=None, description="Name of a step at which the process kills itself (tests)."
    )
    work_dir: Path = Field(
        default=Path(tempfile.gettempdir()) / "floopy",
        description="Scratch space for downloads; may be lost at any time.",
    )
