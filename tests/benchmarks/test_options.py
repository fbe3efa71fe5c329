"""Tests of benchmarks/options.py, and of the command line of every benchmark."""

import pytest

import limits
import options
import packed_rows
import ppo_vs_trl
import sampling_vs_generate
import sft_vs_trl

PARSERS = {
    "ppo": ppo_vs_trl.arguments,
    "sft": sft_vs_trl.arguments,
    "sampling": sampling_vs_generate.arguments,
    "limits": limits.arguments,
    "packed": packed_rows.arguments,
}
BAD = [
    ("ppo", ["--pairs", "0"], "argument --pairs: expected a whole number above 0, found '0'"),
    ("ppo", ["--minibatches", "3"], "argument --minibatches: invalid choice: 3"),
    ("ppo", ["--set", "epochs"], "argument --set: expected path.to.key=value, with a value in YAML, found 'epochs'"),
    ("sft", ["--passes", "-1"], "argument --passes: expected a whole number above 0, found '-1'"),
    ("sampling", ["--rows", "many"], "argument --rows: expected a whole number above 0, found 'many'"),
    ("sampling", ["--dtype", "float16"], "argument --dtype: invalid choice: 'float16'"),
    ("limits", ["--json", "no/such/directory/x.json"], "argument --json: expected a file in a directory that exists"),
    ("packed", ["--layers", "0"], "argument --layers: expected a whole number above 0, found '0'"),
    ("limits", ["--fast"], "unrecognized arguments: --fast"),
    ("limits", ["--model", "m"], "unrecognized arguments: --model m"),
]


@pytest.mark.parametrize(("name", "given", "line"), BAD)
def test_a_bad_option_is_refused_in_one_line_with_status_2(name, given, line, capsys):
    with pytest.raises(SystemExit) as stopped:
        PARSERS[name]().parse_args(given)
    error = capsys.readouterr().err
    assert stopped.value.code == 2
    assert line in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("name", PARSERS)
def test_every_benchmark_takes_json_and_quick(name, tmp_path):
    given = PARSERS[name]().parse_args(["--quick", "--json", str(tmp_path / "rows.json")])
    assert given.quick and given.json == tmp_path / "rows.json"


def test_rows_may_be_given_several_times():
    assert sampling_vs_generate.arguments().parse_args(["--rows", "16", "--rows", "64"]).rows == [16, 64]


@pytest.mark.parametrize(
    ("module", "given", "line"),
    [
        (ppo_vs_trl, ["--only", "nothing like this"], "--only: no comparison contains 'nothing like this'"),
        (sft_vs_trl, ["--only", "nothing like this"], "--only: no comparison contains 'nothing like this'"),
        (ppo_vs_trl, ["--quick", "--only", "separate"], "--only: no comparison of --quick contains 'separate'"),
        (sft_vs_trl, ["--quick", "--only", "full rows"], "--only: no comparison of --quick contains 'full rows'"),
        (ppo_vs_trl, ["--quick", "--pairs", "2"], "--pairs: --quick takes at most 1, found 2"),
        (sft_vs_trl, ["--quick", "--pairs", "3"], "--pairs: --quick takes at most 1, found 3"),
        (ppo_vs_trl, ["--quick", "--minibatches", "2"], "--minibatches: --quick takes at most 1, found 2"),
        (sampling_vs_generate, ["--quick", "--pairs", "3"], "--pairs: --quick takes at most 1, found 3"),
        (sampling_vs_generate, ["--quick", "--new-tokens", "64"], "--new-tokens: --quick takes at most 24, found 64"),
    ],
)
def test_options_that_leave_nothing_or_contradict_each_other_are_refused(module, given, line, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["benchmark", *given])
    with pytest.raises(SystemExit) as stopped:
        module.main()
    assert stopped.value.code == 2
    assert capsys.readouterr().err == f"benchmark: argument {line} (see --help)\n"


@pytest.mark.parametrize(
    ("given", "pairs", "minibatches"),
    [
        ([], 3, 1),
        (["--quick"], 1, 1),
        (["--pairs", "5", "--minibatches", "4"], 5, 4),
        (["--quick", "--pairs", "1"], 1, 1),
    ],
)
def test_sizes_that_are_not_given_are_smaller_with_quick(given, pairs, minibatches):
    made = ppo_vs_trl.arguments()
    found = made.parse_args(given)
    options.settle(made, found, pairs=options.PAIRS, minibatches=ppo_vs_trl.MINIBATCHES)
    assert (found.pairs, found.minibatches) == (pairs, minibatches)


@pytest.mark.parametrize(
    ("given", "has_goal"),
    [
        ([], True),
        (["--pairs", "5", "--updates", "2"], True),
        (["--quick"], False),
        (["--dtype", "float32"], False),
        (["--model", "another"], False),
        (["--set", "epochs=2"], False),
    ],
)
def test_goals_stand_beside_what_they_were_set_for(given, has_goal):
    found = ppo_vs_trl.arguments().parse_args(given)
    assert options.has_goals(found) is has_goal
    for size, is_full in ((ppo_vs_trl.FULL, True), (ppo_vs_trl.Size(minibatches=4), False)):
        row = ppo_vs_trl._completed({"ours": {"seconds": 2.0, "compute": "bfloat16"}}, (4, 5), 1.0, size, found)
        assert row.get("goal") == ({"at_least": 4, "aim": 5} if has_goal and is_full else None)
        assert row["work"]["ours_computes_in"] == "bfloat16" and row["share_of_limit"] == 0.5


def test_a_model_that_is_not_there_is_one_line_with_status_2(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("sys.argv", ["benchmark", "--quick", "--model", str(tmp_path / "nowhere")])
    with pytest.raises(SystemExit) as stopped:
        sampling_vs_generate.main()
    error = capsys.readouterr().err
    assert stopped.value.code == 2
    assert error.count("\n") == 1 and "nowhere" in error


def test_the_status_says_whether_anything_was_measured():
    for num_ratios, status in ((0, 1), (3, 0)):
        with pytest.raises(SystemExit) as stopped:
            options.finish(num_ratios)
        assert stopped.value.code == status


def test_quick_runs_one_comparison_and_only_picks_by_name():
    parse = ppo_vs_trl.arguments().parse_args
    chosen = {
        text: [(peer.name, critics) for peer, critics in ppo_vs_trl._chosen(parse(given))]
        for text, given in {"quick": ["--quick"], "old": ["--only", "0.11.4 float32"], "all": []}.items()
    }
    assert chosen["quick"] == [("TRL 1.12.0 mixed", ["shared"])]
    assert chosen["old"] == [("TRL 0.11.4 float32", ["shared"])]
    assert sum(len(critics) for _, critics in chosen["all"]) == 8
