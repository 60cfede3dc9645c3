"""Bounds of the gate: a name, a unit, a reason. What is over a bound is never passed."""

from __future__ import annotations

from airgap.limits import GIB, KIB, MIB

# Read from the front and from the end of a file to tell what it is. A zip's comment may have
# 64 KiB less one byte, behind an end record of 22 bytes.
SNIFF_BYTES = 65 * KIB
# A pickle of opcodes only (protocols 0 and 1 have no magic) is followed this far, in opcodes.
SNIFF_PICKLE_OPS = 20_000
# Longer values of a pickle are stepped over unread, in bytes.
SNIFF_PICKLE_VALUE_BYTES = 4 * KIB
# A line of a text pickle without an end by here is no prose.
SNIFF_PICKLE_LINE_BYTES = 1 * MIB
# JSON up to this size is parsed to tell it from text; above, its opening decides.
SNIFF_JSON_BYTES = SNIFF_BYTES

# The largest tokenizer.json in use has some 34 MB.
MAX_JSON_BYTES = 64 * MIB
# Digits of one JSON integer: `model_max_length` of transformers has 31.
MAX_JSON_DIGITS = 400
# Values in one JSON file that the walk visits: a vocabulary of 256 Ki with its merges, four times.
MAX_JSON_VALUES = 4_000_000
# Text files are read whole, so that a pattern cannot hide behind a block's edge.
MAX_TEXT_BYTES = 64 * MIB

# A header of 200,000 tensors has some 30 MB. The library's own bound is 100 MB.
MAX_SAFETENSORS_HEADER_BYTES = 32 * MIB
# `__metadata__` is notes for people; trainers write some 100 KB into it.
MAX_SAFETENSORS_METADATA_CHARS = 1 * MIB
# NumPy's limit on the rank of an array is 64.
MAX_TENSOR_RANK = 64
MAX_TENSOR_NAME_CHARS = 512
# Any tensor is smaller than this many bits: a file has at most 16 TiB.
MAX_TENSOR_BITS = 2**48

# One tokenizer.model; the largest in use (Gemma's) has some 5 MB.
MAX_SENTENCEPIECE_BYTES = 64 * MIB
# The card's front matter, in bytes: results of benchmarks make some have 200 KB.
MAX_CARD_BYTES = 256 * KIB
# Nodes of a chat template's syntax tree; the largest in use has some 3,000.
MAX_TEMPLATE_NODES = 20_000
# Chat templates of one artifact. Seven named ones are the most that was seen.
MAX_TEMPLATES = 64
# Rounds of one loop nest of constants that a template may ask for.
MAX_TEMPLATE_ROUNDS = 10_000
# A number in a template that counts something is smaller than this.
MAX_TEMPLATE_NUMBER = 100_000
# A factor in a template: indents, counts of columns.
MAX_TEMPLATE_FACTOR = 1_000
# One advisory, and how many of them one folder may hold: all of OSV's for PyPI are some 25,000.
MAX_ADVISORY_BYTES = 4 * MIB
MAX_ADVISORIES = 500_000

# The part of a GGUF file before the weights: vocabulary, merges, tensor table.
MAX_GGUF_HEADER_BYTES = 256 * MIB
# Array elements in it, all arrays together: a vocabulary of 1 Mi with scores, types and merges.
MAX_GGUF_ELEMENTS = 6_000_000
MAX_GGUF_KEYS = 65_536
MAX_GGUF_TENSORS = 1_000_000
# The specification allows arrays in arrays; no writer goes deeper than one.
MAX_GGUF_NESTING = 4
# 2^16-1 bytes by the specification.
MAX_GGUF_KEY_BYTES = 65_535
# GGML_MAX_NAME is 64 with its final NUL; some branches were built with 128.
MAX_GGUF_TENSOR_NAME_BYTES = 127
# GGML_MAX_DIMS.
MAX_GGUF_DIMS = 4
# A page is the largest alignment that anything asks for.
MAX_GGUF_ALIGNMENT = 64 * KIB

# Central directory of a wheel, held in memory: 200,000 members of some 150 bytes.
MAX_WHEEL_DIRECTORY_BYTES = 32 * MIB
MAX_WHEEL_MEMBERS = 200_000
# Unpacked size of one wheel; the largest published ones have some 2 GiB.
MAX_WHEEL_UNPACKED_BYTES = 16 * GIB
# Deflate reaches 1032:1 on zeros; real wheels stay below 10:1. Small ones may do as they like.
MAX_WHEEL_RATIO = 100
WHEEL_RATIO_FLOOR_BYTES = 64 * MIB
# RECORD, WHEEL, METADATA, entry_points.txt: each is read into memory.
MAX_WHEEL_METADATA_BYTES = 32 * MIB

# modelscan took 265 MB for a pickle of 4.7 MB; numpy alone reserves 1 GiB of addresses.
MODELSCAN_ADDRESS_BYTES = 8 * GIB
# Seconds of processor and of wall time for all files of one artifact that modelscan takes up.
MODELSCAN_CPU_SECONDS = 300
MODELSCAN_WALL_SECONDS = 600
# Issues and errors of one file that the child hands on; the rest changes no verdict.
MODELSCAN_MAX_REPORTED = 100
# The child's whole answer.
MODELSCAN_MAX_ANSWER_BYTES = 64 * MIB

# Findings of one file that the evidence names; the rest is one line. The worst come first.
MAX_FINDINGS_PER_FILE = 100
# `Line` of airgap.format.types allows 300 characters.
MAX_REASON_CHARS = 300

# Members of one layer: a full CUDA image has 100,000 in all.
MAX_LAYER_MEMBERS = 2_000_000
# One layer unpacked; the largest published ones (CUDA, torch) have some 10 GiB.
MAX_LAYER_UNPACKED_BYTES = 128 * GIB
# Real layers stay below 20:1 but for sparse small ones; those may do as they like.
MAX_LAYER_RATIO = 100
LAYER_RATIO_FLOOR_BYTES = 256 * MIB
# A long name or an extended header of a tar, in memory. Linux takes paths of 4 KiB.
MAX_TAR_HEADER_BYTES = 1 * MIB
# zstd -19 --long=27; what needs more memory than this is refused by the engines too.
MAX_ZSTD_WINDOW_BYTES = 128 * MIB
# Signature payloads, manifests and configurations are read whole.
MAX_SIGNATURE_BYTES = 16 * MIB
# Signatures of one envelope: cosign writes one; each is tried with each key of the policy.
MAX_ENVELOPE_SIGNATURES = 16
