"""Tests of push_to_hub: stages and trainers upload their complete result, and say what is wrong in one line."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from rlhf.cli import main
from rlhf.errors import ConfigError, HubError
from rlhf.models.pretrained import hub
from rlhf.ppo import train_ppo
from rlhf.stage.model import push_result


def test_a_stage_and_a_trainer_upload_their_result_when_it_is_complete(
    both: Any, workshop: Path, tmp_path: Path, fake_hub: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = {"push_to_hub": "me/model", "hub_private_repo": True}
    saved = both.run(workshop / "policy", tmp_path / "stage", **keys)
    files = sorted(path.name for path in saved.iterdir())
    for expected in (1, 2):  # again: nothing to do but the upload
        both.train(both.make(workshop / "policy", output_dir=tmp_path / "run", **keys))
        assert len(fake_hub.uploaded) == 1 + expected
    message = f"Upload {both.result.replace('_', ' ')}"
    assert fake_hub.uploaded == [{"repo_id": "me/model", "files": files, "commit_message": message}] * 3
    assert all(made == {"repo_id": "me/model", "private": True, "exist_ok": True} for made in fake_hub.made)
    assert capsys.readouterr().out.count("push_to_hub: https://hub.example/me/model\n") == 3
    both.train(both.make(workshop / "policy", output_dir=tmp_path / "run"))
    assert len(fake_hub.uploaded) == 3, "without the key nothing is uploaded, and it is the same run"


def test_an_upload_that_fails_loses_nothing_and_is_done_by_the_next_call(
    both: Any, workshop: Path, tmp_path: Path, fake_hub: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_hub.error = OSError("no route to hf_secret")
    with pytest.raises(HubError) as refused:
        both.run(workshop / "policy", tmp_path / "run", push_to_hub="me/model")
    target = tmp_path / "run" / both.result
    assert str(refused.value) == (
        f"push_to_hub: me/model: no route to ... - the result in {target} is complete: run the same again to upload "
        "it, and nothing else"
    )
    assert (tmp_path / "run" / "complete.json").is_file()
    fake_hub.error = None
    both.run(workshop / "policy", tmp_path / "run", push_to_hub="me/model")
    assert len(fake_hub.uploaded) == 1 and "complete, nothing to do" in capsys.readouterr().out


def test_ppo_uploads_its_policy(tiny: ModuleType, workshop: Path, tmp_path: Path, fake_hub: Any) -> None:
    config = tiny.ppo_config(workshop, output_dir=str(tmp_path / "run"), steps=1, push_to_hub="me/policy")
    for _ in range(2):
        train_ppo(config)
    made = tiny.ppo_trainer(workshop, steps=1, push_to_hub="me/policy")
    made.train(tiny.BEGINNINGS)  # without a directory the model is written for the upload alone
    assert [sent["repo_id"] for sent in fake_hub.uploaded] == ["me/policy"] * 3
    assert all("value_head.safetensors" in sent["files"] for sent in fake_hub.uploaded)


def test_a_trainer_uploads_when_it_is_asked(both: Any, workshop: Path, fake_hub: Any) -> None:
    made = both.make(workshop / "policy", push_to_hub=None)
    with pytest.raises(ConfigError, match="push_to_hub: no repository - give user/name"):
        made.push_to_hub()
    assert made.push_to_hub("me/other", private=False) == "https://hub.example/me/other"
    assert fake_hub.made[-1]["private"] is False and "training.json" in fake_hub.uploaded[-1]["files"]
    fake_hub.error = OSError("no")
    with pytest.raises(HubError, match=r"^push_to_hub: me/other: no - the model is still here: trainer.save\(path\)"):
        made.push_to_hub("me/other")
    assert made.history == []


def test_an_adapter_whose_base_is_only_here_is_uploaded_with_a_warning(
    sft: Any, workshop: Path, fake_hub: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    sft.make(workshop / "policy", model={"lora": {"r": 2}}).push_to_hub("me/adapter")
    base = (workshop / "policy").absolute()
    assert f"the adapter needs its base, which is only here: {base} - see `rlhf merge`" in capsys.readouterr().out


def test_without_a_token_a_run_that_is_to_upload_does_not_begin(
    both: Any, workshop: Path, tmp_path: Path, fake_hub: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "get_token", lambda: None)
    with pytest.raises(ConfigError, match="push_to_hub: there is no access token"):
        both.run(workshop / "policy", tmp_path / "run", push_to_hub="me/model")
    with pytest.raises(ConfigError, match="push_to_hub: there is no access token"):
        both.make(workshop / "policy", push_to_hub="me/model")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ({"push_to_hub": "a/b/c"}, 'push_to_hub: must be a name such as user/name [got "a/b/c"]'),
        ({"push_to_hub": True}, "push_to_hub: must be text [got true]"),
        ({"hub_private_repo": True}, "hub_private_repo: nothing is pushed - set push_to_hub"),
    ],
)
def test_keys_that_cannot_work_are_refused(both: Any, workshop: Path, keys: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError) as refused:
        both.make(workshop / "policy", **keys)
    assert str(refused.value).endswith(line)


def test_the_command_line_says_so_with_status_4(
    workshop: Path, tmp_path: Path, fake_hub: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_hub.error = OSError("no route")
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "A", "completion": " b"}\n')
    given = [f"model.path={workshop / 'policy'}", f"data.path={rows}", "steps=1", f"output_dir={tmp_path / 'run'}"]
    assert main(["sft", *given, "model.precision=float32", "push_to_hub=me/model"]) == 4
    assert "error: push_to_hub: me/model: no route - the result in" in capsys.readouterr().err
    fake_hub.error = None
    assert main(["sft", *given, "model.precision=float32", "push_to_hub=me/model"]) == 0


def test_other_processes_of_a_stage_upload_nothing(
    sft: Any, workshop: Path, tmp_path: Path, fake_hub: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = sft.make(workshop / "policy", push_to_hub="me/model")
    for rank, expected in (("1", 0), ("0", 1)):
        monkeypatch.setenv("RANK", rank)
        push_result(made.config, tmp_path)
        assert len(fake_hub.uploaded) == expected


SCRIPT = """
import sys
from pathlib import Path
from rlhf import SFTSettings, SFTTrainer
from rlhf.errors import HubError
from rlhf.models.pretrained import hub
workshop, log = Path(sys.argv[1]), Path(sys.argv[2])
hub.check_hub = lambda: None
class Hub:
    def create_repo(self, repo_id, **options):
        with log.open("a") as file:
            file.write(f"{rank} {repo_id}\\n")
        if repo_id == "me/fails":
            raise OSError("no")
        made = type("Made", (str,), {})("at/" + repo_id)
        made.repo_id = repo_id
        return made
    def upload_folder(self, **options): pass
hub.HfApi = Hub
import rlhf.stage.frame, rlhf.api.trainer
rlhf.stage.frame.check_hub = rlhf.api.trainer.check_hub = hub.check_hub
settings = SFTSettings(steps=1, batch_size=2, model={"precision": "float32"}, push_to_hub="me/model")
made = SFTTrainer(workshop / "policy", config=settings, output_dir=log.parent / "run")
rank = made.processes.rank
made.train([{"prompt": "A", "completion": " b"}, {"prompt": "C", "completion": " d"}])
assert made.push_to_hub("me/other") == "at/me/other"
try:
    made.push_to_hub("me/fails")
except HubError:
    print(f"process {rank} knows", flush=True)
"""


def test_of_several_processes_one_uploads_and_all_learn_how_it_went(
    workshop: Path, tmp_path: Path, in_two_processes: Callable[[list[str]], list[str]]
) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    printed = in_two_processes([sys.executable, str(script), str(workshop), str(tmp_path / "log")])
    assert (tmp_path / "log").read_text().splitlines() == ["0 me/model", "0 me/other", "0 me/fails"]
    assert all(f"process {rank} knows" in text for rank, text in enumerate(printed))
