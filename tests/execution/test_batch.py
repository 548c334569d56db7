import pytest

from asymlib.runs.matrix import load_matrix
from asymlib.support.yaml12 import read_yaml

MATRIX = """
defaults: {profile: lab, steps: 5}
axes:
  method: [grpo, {method: reinforce, entropy_coeff: 0.01}]
  policy: [small, base]
  seed: [100, 101]
"""


@pytest.fixture
def matrix(tmp_path):
    def write(text):
        path = tmp_path / "matrix.yaml"
        path.write_text(text)
        return path

    return write


def names(specs):
    return [(s.variant, s.policy, s.seed, s.steps) for s in specs]


def test_axes_multiply_in_order_on_top_of_the_defaults(matrix):
    specs = load_matrix(matrix(MATRIX))
    reinforce = "reinforce entropy_coeff=0.01"
    expected = [(m, p, s, 5) for m in ("grpo", reinforce) for p in ("small", "base") for s in (100, 101)]
    assert names(specs) == expected and {s.profile for s in specs} == {"lab"}


def test_exceptions_skip_and_change_where_all_of_when_matches(matrix):
    exceptions = """
exceptions:
  - {when: {method: grpo, seed: 101}, skip: true}
  - {when: {policy: base}, set: {steps: 3}}
"""
    specs = names(load_matrix(matrix(MATRIX + exceptions)))
    assert len(specs) == 6
    assert not [s for s in specs if s[0] == "grpo" and s[2] == 101]
    assert {s[3] for s in specs if s[1] == "base"} == {3} and {s[3] for s in specs if s[1] == "small"} == {5}


def test_a_later_exception_sees_what_an_earlier_one_set(matrix):
    exceptions = """
exceptions:
  - {when: {policy: base}, set: {steps: 3}}
  - {when: {steps: 3}, skip: true}
"""
    assert {s[1] for s in names(load_matrix(matrix(MATRIX + exceptions)))} == {"small"}


def test_an_axis_may_be_a_method_setting(matrix):
    specs = load_matrix(matrix("defaults: {method: reinforce}\naxes:\n  beta_neg: [0.25, 0.75]\n"))
    assert [s.variant for s in specs] == ["reinforce beta_neg=0.25", "reinforce beta_neg=0.75"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must be a YAML mapping, not NoneType"),
        ("- grpo\n", "must be a YAML mapping, not list"),
        ("axes: [1, 2\n", "not YAML: "),
        ("1: 2\n", "must be a YAML mapping"),
        ("axis: {method: [grpo]}\n", "unknown key 'axis': did you mean 'axes'?"),
        ("defaults: {method: grpo}\n", "axes is missing"),
        ("axes: {}\n", "axes={}: "),
        ("axes: {method: grpo}\n", "axes.method='grpo': "),
        ("axes: {method: [grpo]}\nexceptions: [{skip: true}]\n", "exceptions.0.when is missing"),
        ("axes: {method: [grpo]}\nexceptions: [{when: {}, skip: true}]\n", "exceptions.0.when={}: "),
        ("axes: {method: [grpo]}\nexceptions: [{when: {seed: 1}, drop: true}]\n", "exceptions.0.drop=True: "),
        ("axes: {method: [grp]}\n", "unknown method 'grp': did you mean 'grpo'"),
        ("axes: {seed: [0]}\n", "method is missing: allowed: "),
        ("axes: {method: [grpo], sed: [1]}\n", "unknown parameter 'sed': did you mean 'seed'"),
        ("axes: {method: [grpo], seed: [one]}\n", "seed='one': "),
    ],
)
def test_refusals_are_one_line_that_names_the_file(matrix, text, message):
    path = matrix(text)
    with pytest.raises(ValueError) as error:
        load_matrix(path)
    assert str(error.value).startswith(f"{path}: {message}") and "\n" not in str(error.value)


def test_unreadable_files_are_refused_in_one_line(tmp_path):
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00\x81")
    for path, message in ((tmp_path / "none.yaml", "No such file"), (tmp_path, "Is a directory"), (binary, "not a text file")):
        with pytest.raises(ValueError) as error:
            read_yaml(path)
        assert str(error.value).startswith(f"{path}: {message}") and "\n" not in str(error.value)
