"""JSON of a model: what makes a loader run, import or fetch something."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bundler.scan import bounds
from bundler.scan.config import ConfigScanner
from tests.unit.scan.makers import ids, look, severity


def found(tmp_path: Path, document: Any, name: str = "config.json") -> set[str]:
    result = look(ConfigScanner(), tmp_path, {name: json.dumps(document).encode()})
    assert result.covered
    return ids(result)


ORDINARY = {
    "_name_or_path": "org/model",
    "architectures": ["LlamaForCausalLM"],
    "attn_implementation": "flash_attention_2",
    "model_max_length": 1000000000000000019884624838656,
    "rope_theta": 1e6,
    "trust_remote_code": False,
    "auto_map": None,
    "chat_template": "{% for m in messages %}{{ m['content'] }}{% endfor %}",
    "tokenizer_class": "PreTrainedTokenizerFast",
    "added_tokens_decoder": {"0": {"content": "<unk>", "special": True}},
}


def test_ordinary_configuration_is_covered_without_findings(tmp_path: Path) -> None:
    assert found(tmp_path, ORDINARY) == set()
    assert found(tmp_path, {"a": [1, {"b": "c"}]}, "deep/down/x.json") == set()


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "a/b/processor.JSON"])
@pytest.mark.parametrize(
    ("document", "id"),
    [
        ({"auto_map": {"AutoModel": "modeling.Model"}}, "code.auto-map"),
        ({"auto_map": {"AutoModel": "org/repo--modeling.Model"}}, "code.auto-map"),
        ({"text_config": {"x": [{"auto_map": {"AutoConfig": "c.C"}}]}}, "code.auto-map"),
        ({"trust_remote_code": True}, "code.trust-remote-code"),
        ({"a": {"trust_remote_code": "yes"}}, "code.trust-remote-code"),
        ({"_attn_implementation_internal": "x"}, "code.implementation"),
        ({"a": [{"_experts_implementation_internal": "x"}]}, "code.implementation"),
        ({"attn_implementation": "org/kernel"}, "code.implementation"),
        ({"_attn_implementation": {"text_config": "org/kernel"}}, "code.implementation"),
        ({"decoder_attn_implementation": "org/kernel:fn"}, "code.implementation"),
        ({"model_file": "model.py"}, "code.model-file"),
        ({"custom_generate": "org/repo"}, "code.custom-pipeline"),
        ({"custom_pipelines": {"x": {"impl": "p.P"}}}, "code.custom-pipeline"),
        ({"tokenizer_file": "/etc/passwd"}, "config.off-bundle"),
        ({"x": {"adapter_path": "https://example.org/a"}}, "config.off-bundle"),
        ({"vocab_file": "../../x"}, "config.off-bundle"),
        ({"cache_dir": "~/x"}, "config.off-bundle"),
        ({"image_url": "file:///etc"}, "config.off-bundle"),
        ({"weights_path": "C:\\x"}, "config.off-bundle"),
        ({"chat_template": "a\u202eb"}, "text.bidirectional"),
        ({"chat_template": [{"name": "x", "template": "a\u200bb"}]}, "text.hidden"),
    ],
)
def test_what_a_loader_acts_on_is_found_in_any_json(
    tmp_path: Path, document: Any, id: str, name: str
) -> None:
    result = look(ConfigScanner(), tmp_path, {name: json.dumps(document).encode()})
    assert severity(result, id) in ("medium", "high")


def test_escaped_key_is_found(tmp_path: Path) -> None:
    data = b'{"\\u0061uto_map": {"AutoModel": "m.M"}}'
    assert ids(look(ConfigScanner(), tmp_path, {"config.json": data})) == {"code.auto-map"}


@pytest.mark.parametrize("type", ["os.system", "sentence_transformers.models.Pooling;x", 5, None])
def test_foreign_module_type_is_refused(tmp_path: Path, type: Any) -> None:
    document = [{"idx": 0, "name": "0", "path": "", "type": type}]
    assert found(tmp_path, document, "modules.json") == {"code.module-type"}


def test_modules_of_the_library_itself_pass(tmp_path: Path) -> None:
    types = ["sentence_transformers.models.Transformer", "sentence_transformers.models.Pooling"]
    assert found(tmp_path, [{"path": "", "type": t} for t in types], "modules.json") == set()


def test_names_that_nothing_follows_offline_are_only_noted(tmp_path: Path) -> None:
    document = {"base_model_name_or_path": "org/base", "_name_or_path": "/home/someone/run"}
    result = look(ConfigScanner(), tmp_path, {"adapter_config.json": json.dumps(document).encode()})
    assert {f.severity for f in result.findings} == {"low"}
    assert len(result.findings) == 2


@pytest.mark.parametrize(
    "data",
    [
        b'{"auto_map": null, "auto_map": {"AutoModel": "m.M"}}',
        b'{"a": {"b": 1, "b": 2}}',
        b'{"a": NaN}',
        b'{"a": 1} {"b": 2}',
        b'{"a": 1',
        b"[" * 200_000 + b"]" * 200_000,
        b'{"a": ' + b"9" * 5000 + b"}",
        b"\xef\xbb\xbf{}",
        b"",
        b"\n",
    ],
)
def test_json_that_is_not_strict_is_refused_and_not_covered(tmp_path: Path, data: bytes) -> None:
    result = look(ConfigScanner(), tmp_path, {"config.json": data})
    assert severity(result, "json.malformed") == "high"
    assert not result.covered and result.unscanned


def test_json_over_the_bound_is_not_covered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "MAX_JSON_BYTES", 100)
    result = look(ConfigScanner(), tmp_path, {"config.json": b'{"a": "%s"}' % (b"x" * 100)})
    assert not result.covered and result.unscanned


def test_json_of_too_many_values_is_not_covered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "MAX_JSON_VALUES", 100)
    result = look(ConfigScanner(), tmp_path, {"config.json": json.dumps([0] * 200).encode()})
    assert not result.covered and result.unscanned
