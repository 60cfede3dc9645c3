"""Every bound in one place: a name, a unit, a reason."""

from __future__ import annotations

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

# A manifest lists every file; 100,000 files of about 300 bytes each fit.
MAX_DOCUMENT_BYTES = 32 * MIB
# The deepest document of ours has 7 levels; TUF metadata has 6.
MAX_JSON_DEPTH = 32
# RFC 8259 section 6: integers in this range are exact in every implementation.
MAX_JSON_INT = 2**53 - 1
# Longest decimal form of MAX_JSON_INT with a sign; bounds the work of int().
MAX_JSON_INT_DIGITS = 17
# 9999-12-31T23:59:59Z, the last second that RFC 3339 and Python's datetime can write.
MAX_SECONDS = 253_402_300_799
# A path inside a bundle, in bytes of UTF-8. ext4 and xfs allow 255 bytes a component.
MAX_PATH_BYTES = 1024
MAX_PATH_COMPONENT_BYTES = 255
MAX_PATH_DEPTH = 32
# A line of text for people (summary, reason, label), in characters.
MAX_LINE_CHARS = 300
# A prompt, an officer's comment, a finding's message, in characters.
MAX_TEXT_CHARS = 8000
# Files that one bundle may name; the lstat walk stops here.
MAX_FILES = 200_000
# A file may not be larger than this, in bytes: 16 TiB is ext4's own limit with 4 KiB blocks.
MAX_FILE_BYTES = 16 * 1024 * GIB

# The quarantine of a bundle's trust/ folder, held in memory: root chain, targets, statements.
MAX_TRUST_FILES = 1500
MAX_TRUST_FILE_BYTES = MAX_DOCUMENT_BYTES
MAX_TRUST_TOTAL_BYTES = 96 * MIB
# TUF root chain: one rotation a week for 20 years.
MAX_ROOT_ROTATIONS = 1024
MAX_ROOT_BYTES = 512 * KIB
MAX_TIMESTAMP_BYTES = 16 * KIB
MAX_SNAPSHOT_BYTES = 2 * MIB
MAX_TARGETS_BYTES = 16 * MIB
# An officer's statement is one DSSE envelope of a few kilobytes.
MAX_STATEMENT_BYTES = 64 * KIB
# Rendered report. It lists findings, not files, so it stays small.
MAX_REPORT_BYTES = 32 * MIB

# Read and hashed at once, in bytes. Large enough that the GIL is released for long stretches.
COPY_CHUNK_BYTES = 4 * MIB
# So much of a growing blob is handed to the disk at a time, so that the last fsync has little left.
WRITEBACK_BYTES = 8 * MIB
# Files in flight while hashing or copying: more does not help two cores, fewer starves eight.
MAX_COPY_WORKERS = 8

# Sealift's daemon log of one engine before it is turned over, in bytes; two are kept.
MAX_LOG_BYTES = 16 * MIB
# An answer of the engine to a check, in bytes.
MAX_ANSWER_BYTES = 1 * MIB
# Seconds an engine may take until /health answers 200: 140 GB of weights from a slow disk.
ENGINE_START_SECONDS = 1800
# Seconds a gateway may take until it is healthy: it loads much Python and no model.
GATEWAY_START_SECONDS = 300
# Seconds between SIGTERM and SIGKILL when an engine is stopped.
ENGINE_STOP_SECONDS = 20
# Seconds after an engine's end in which the processes that it started may clean up and end too:
# Python's tracker of shared memory needs less than one.
ENGINE_GROUP_SECONDS = 5
# Seconds that answers under way may take to finish after a switch, before the old engine stops:
# nothing waits for it but the command, and a long answer takes minutes.
DRAIN_SECONDS = 300
# Seconds without a connection before an engine counts as left: a relay that has just looked up
# where to connect has connected by then.
QUIET_SECONDS = 0.5

# Seconds after a switch in which a version that is given up makes room for the one before.
PROBATION_SECONDS = 3600

# An engine that dies more often than this within RESTART_WINDOW_SECONDS is not started again.
MAX_RESTARTS = 5
RESTART_WINDOW_SECONDS = 600
# Seconds between a crash and the next start; doubles with each crash, up to the maximum.
RESTART_BACKOFF_SECONDS = 1
MAX_RESTART_BACKOFF_SECONDS = 60
# Seconds a daemon of ours may take to hold its lock and to say where it listens: an interpreter's
# start from a cold disk.
DAEMON_START_SECONDS = 30
# Lines of a log that an error quotes, and the bytes they are looked for in.
LOG_TAIL_LINES = 12
LOG_TAIL_BYTES = 16 * KIB
# Lines in which an engine's known messages are looked for: vLLM ends with two tracebacks.
LOG_SEARCH_LINES = 400
LOG_SEARCH_BYTES = 128 * KIB
# An environment's list of checksums: vLLM's has 60,000 files of about 150 bytes a line.
MAX_SUMS_BYTES = 64 * MIB
# The same for each log in a support dump.
SUPPORT_LOG_LINES = 2000
SUPPORT_LOG_BYTES = 256 * KIB
# A ledger entry is a few hundred bytes; ten entries a day for 50 years fit.
MAX_LEDGER_ENTRY_BYTES = 64 * KIB
MAX_LEDGER_BYTES = 256 * MIB
# Unpacked and compiled size of wheels over their packed size: 3.0 measured for binaries, more for
# pure Python, which is small.
WHEEL_UNPACK_FACTOR = 4
# What podman needs of its own storage over the size of compressed layers: the blob as it arrives
# (2.0 measured with layers that do not compress), and layers of CUDA images that double.
IMAGE_UNPACK_FACTOR = 3
# Facts of a host are a few kilobytes; this many bytes of them are read on the connected side.
MAX_FACTS_BYTES = 256 * KIB
# Room for logs, receipts and the engine's own scratch files, in bytes.
HOST_RESERVE_BYTES = 128 * MIB
# The head of an HTTP message, in bytes; 16 KiB and 64 KiB are what servers usually take.
MAX_HEAD_BYTES = 64 * KIB
# Lines after the last chunk of a body; hardly anything sends one.
MAX_TRAILER_LINES = 32
# A request's body up to this many bytes is held until the engine begins to answer, so that it can
# be sent again; a longer one streams.
HELD_BODY_BYTES = 1 * MIB
# A request's body, in bytes: images inside a chat.
MAX_BODY_BYTES = 64 * MIB
# Seconds a client may take between two requests, and for one head or piece of body. Longer idle
# than clients' own pools keep connections (120 s): whoever closes first must not be us.
CLIENT_IDLE_SECONDS = 300
CLIENT_SLOW_SECONDS = 30
# Connections that one front or door holds at once.
MAX_CONNECTIONS = 4096
# How often a request that no engine has begun to answer is sent on again.
RELAY_TRIES = 4
