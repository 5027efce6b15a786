# SPDX-License-Identifier: BSD-3-Clause
"""Potential files: what is written reads back, what MLIP wrote is read, nothing damaged is taken for a potential."""

import re
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from mtp.errors import Error, LibraryError
from mtp.potential import Potential

REFERENCES = ["cubic_08", "cubic_12", "cubic_16", "cubic_20", "multi_10"]


@pytest.fixture(scope="module")
def potential(random_potential):
    return random_potential(("Cu", "O"), level=8, seed=3)


@pytest.fixture(scope="module")
def graded(random_potential, random_atoms):
    potential = random_potential(("Cu",), level=6, n_chebyshev=4, seed=4)
    potential.select([random_atoms(("Cu",), seed=k) for k in range(4)])
    return potential


def text_of(potential, folder):
    potential.save(folder / "whole.mtp")
    return (folder / "whole.mtp").read_text()


def bytes_of(potential, folder):
    potential.save(folder / "whole.almtp")
    return (folder / "whole.almtp").read_bytes()


def refused(path, match=None, line=None):
    with pytest.raises(LibraryError, match=match) as caught:
        Potential.load(path)
    place = f"{path}: " if line is None else f"{path}:{line}: "
    assert str(caught.value).startswith(place if line is not None else str(path)), caught.value


# ---- what is written reads back


@pytest.mark.parametrize("name", REFERENCES)
def test_a_file_that_mlip_wrote_is_written_byte_by_byte_the_same(name, shared_data, tmp_path):
    original = shared_data / "reference" / f"{name}.mtp"
    Potential.load(original).save(tmp_path / "again.mtp")
    assert (tmp_path / "again.mtp").read_bytes() == original.read_bytes()


@pytest.mark.parametrize(("species", "level"), [(("Cu",), 2), (("Cu", "O"), 8), (("H", "C", "O"), 12)])
def test_a_potential_reads_back_as_it_was(species, level, random_potential, tmp_path):
    potential = random_potential(species, level=level, n_chebyshev=5, seed=level)
    potential.save(tmp_path / "a.mtp")
    again = Potential.load(tmp_path / "a.mtp")
    assert again.species == list(species)
    # 16 significant digits are written: half a unit of the last is at most 5e-16 of the value
    np.testing.assert_allclose(again.parameters, potential.parameters, rtol=6e-16, atol=0)
    for name, value in vars(potential.facts).items():
        if isinstance(value, float):
            assert getattr(again.facts, name) == pytest.approx(value, rel=6e-16)
        else:
            assert getattr(again.facts, name) == value
    again.save(tmp_path / "b.mtp")
    assert (tmp_path / "b.mtp").read_bytes() == (tmp_path / "a.mtp").read_bytes()


def test_coefficients_of_any_size_read_back(potential, tmp_path):
    extreme = potential.copy()
    theta = extreme.parameters
    theta[:6] = [1e300, -1e300, 1e-300, 5e-324, -0.0, 0.0]
    extreme.parameters = theta
    extreme.save(tmp_path / "a.mtp")
    # as above; the smallest number of all has no digits to lose
    np.testing.assert_allclose(Potential.load(tmp_path / "a.mtp").parameters, theta, rtol=6e-16, atol=0)


def test_an_untrained_potential_reads_back(tmp_path):
    potential = Potential.new(10, ["Si", "O"], cutoff=5.0, min_distance=1.5)
    potential.save(tmp_path / "a.mtp")
    again = Potential.load(tmp_path / "a.mtp")
    assert not again.facts.trained
    assert again.species == ["Si", "O"]
    assert again.facts == potential.facts
    with pytest.raises(LibraryError, match="not trained"):
        _ = again.parameters
    assert "coeffs" not in (tmp_path / "a.mtp").read_text()


def test_element_names_stand_in_the_tag_and_leave_its_text(potential, tmp_path):
    text = text_of(potential, tmp_path)
    assert "potential_tag = elements:Cu,O\n" in text
    (tmp_path / "tagged.mtp").write_text(text.replace("tag = ", "tag = fitted by Ann, "))
    tagged = Potential.load(tmp_path / "tagged.mtp")
    assert tagged.species == ["Cu", "O"]
    tagged.species = ["O", "Cu"]
    assert "potential_tag = fitted by Ann, elements:O,Cu\n" in text_of(tagged, tmp_path)
    tagged.species = None
    assert "potential_tag = fitted by Ann,\n" in text_of(tagged, tmp_path)
    assert Potential.load(tmp_path / "whole.mtp").species is None


@pytest.mark.parametrize("names", [["Cu"], ["Cu", "O", "H"], ["Cu", "O O"], ["Cu", ""], ["Cu", "O\nMTP"]])
def test_element_names_that_a_file_cannot_hold_are_refused(names, potential):
    changed = potential.copy()
    with pytest.raises(LibraryError, match="element name"):
        changed.species = names
    assert changed.species == ["Cu", "O"]


@pytest.mark.parametrize("mode", ["neighbourhood", "configuration"])
def test_an_active_set_reads_back_bit_by_bit(mode, random_potential, random_atoms, tmp_path):
    potential = random_potential(("Cu", "O"), level=6, n_chebyshev=4, seed=5)
    potential.select([random_atoms(("Cu", "O"), seed=k) for k in range(6)], mode)
    potential.save(tmp_path / "a.almtp")
    again = Potential.load(tmp_path / "a.almtp")
    assert again.facts.active_set == mode
    assert again.active_set.tobytes() == potential.active_set.tobytes()
    again.save(tmp_path / "b.almtp")
    assert (tmp_path / "b.almtp").read_bytes() == (tmp_path / "a.almtp").read_bytes()
    again.save(tmp_path / "c.mtp")
    assert Potential.load(tmp_path / "c.mtp").facts.active_set is None


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("cubic_08_neighbourhood.als", "neighbourhood"),
        ("cubic_08_configuration.als", "configuration"),
        ("cubic_08_neighbourhood.almtp", "neighbourhood"),
    ],
)
def test_mlips_active_sets_are_read(name, mode, shared_data):
    potential = Potential.load(shared_data / "reference" / name)
    assert potential.facts.active_set == mode
    plain = Potential.load(shared_data / "reference" / "cubic_08.mtp")
    np.testing.assert_array_equal(potential.parameters, plain.parameters)
    rows = potential.active_set
    # |γ - 1| of a row of A: MLIP-2's inverse went through rank-1 updates; the reader admits 1e-2
    assert np.abs(rows @ np.linalg.inv(rows) - np.eye(len(rows))).max() < 1e-2
    blank = np.count_nonzero(rows, axis=1) == 1  # MLIP began with a multiple of the identity
    assert 0 < blank.sum() < len(rows)
    assert (rows[~blank, 16] == 1).all()  # ∂E/∂(species coefficient), per atom in configuration mode


def test_both_layouts_of_one_active_set_are_the_same(shared_data):
    als, almtp = (
        Potential.load(shared_data / "reference" / f"cubic_08_neighbourhood.{suffix}") for suffix in ("als", "almtp")
    )
    assert als.active_set.tobytes() == almtp.active_set.tobytes()


def test_a_scaling_of_the_radial_basis_multiplies_the_other_one(potential, random_atoms, tmp_path):
    text = text_of(potential, tmp_path)
    line = "radial_basis_type = RBChebyshev\n"
    (tmp_path / "nested.mtp").write_text(text.replace(line, f"{line}\tscaling = 2.5e-01\n"))
    nested = Potential.load(tmp_path / "nested.mtp")
    assert nested.facts.scaling == pytest.approx(potential.facts.scaling / 4, rel=6e-16)
    once = Potential.load(tmp_path / "whole.mtp")
    once.set_scaling(nested.facts.scaling)
    atoms = random_atoms(("Cu", "O"))
    assert nested.evaluate(atoms).energy == once.evaluate(atoms).energy


def test_white_space_and_missing_optional_lines_do_not_matter(potential, tmp_path):
    text = text_of(potential, tmp_path)
    theta = Potential.load(tmp_path / "whole.mtp").parameters
    for variant in (
        text.replace("\n", "\r\n") + "\r\n",
        text.replace(", ", ","),
        text.replace("}, {", "},\n\t{"),
        re.sub(r"potential_(name|tag).*\n", "", text),
    ):
        (tmp_path / "variant.mtp").write_bytes(variant.encode())
        np.testing.assert_array_equal(Potential.load(tmp_path / "variant.mtp").parameters, theta)
    (tmp_path / "variant.mtp").write_text(re.sub("scaling.*\n", "", text))
    assert Potential.load(tmp_path / "variant.mtp").facts.scaling == 1


# ---- damaged files


def test_what_is_no_potential_is_refused(tmp_path):
    for content in (
        b"",
        b"\n\n",
        b"MTP",
        b"hello",
        bytes(range(256)) * 9,
        b"\x7fELF" + bytes(99),
        b"#MVS_v1.1\n#",
    ):
        (tmp_path / "a.mtp").write_bytes(content)
        refused(tmp_path / "a.mtp")
    refused(tmp_path / "missing.mtp", "No such file")
    refused(tmp_path, "directory")


@pytest.mark.parametrize("trained", [True, False])
def test_a_truncated_file_is_refused(trained, potential, tmp_path):
    text = text_of(potential if trained else Potential.new(8, ["Cu", "O"], 5.0), tmp_path)
    path = tmp_path / "short.mtp"
    for end in {*np.linspace(0, len(text) - 1, 60).astype(int).tolist(), len(text) - 2, len(text) - 3}:
        path.write_text(text[:end])
        refused(path, line=text[:end].count("\n") + 1)


CONTRADICTIONS = [
    ("MTP\n", "MTQ\n", "first line must be 'MTP'"),
    ("version = 1.1.0", "version = 2.0.0", "version 2.0.0 is not known"),
    ("version", "versoin", "expected 'version'"),
    ("RBChebyshev", "RBShapeev", "RBShapeev is not supported"),
    ("scaling = 9", "scaling = x9", "expected a number"),
    (r"scaling = .*", "scaling = nan", "not a finite number"),
    (r"scaling = .*", "scaling = 0", "scaling must be"),
    ("species_count = 2", "species_count = 0", "outside 1 to"),
    ("species_count = 2", "species_count = -2", "outside 1 to"),
    ("species_count = 2", "species_count = 3", "expected"),
    ("species_count = 2", "species_count = 2.5", "expected a number"),
    ("species_count = 2", "species_count = 99999999999999999999", "expected a number"),
    ("elements:Cu,O", "elements:Cu", "names 1 elements for 2"),
    (r"min_dist = .*", "min_dist = 9", "cutoff"),
    (r"min_dist = .*", "min_dist = -1", "cutoff"),
    (r"min_dist = .*", "min_dist = nan", "finite"),
    (r"max_dist = .*", "max_dist = inf", "finite"),
    (r"max_dist = .*", "max_dist = 1e999", "expected a number"),
    ("radial_basis_size = 8", "radial_basis_size = 7", "expected 7 numbers, found 8"),
    ("radial_basis_size = 8", "radial_basis_size = 9", "expected 9 numbers, found 8"),
    ("radial_basis_size = 8", "radial_basis_size = 0", "outside"),
    ("radial_funcs_count = 2", "radial_funcs_count = 1", "pair of species"),
    ("radial_funcs_count = 2", "radial_funcs_count = 3", "expected '{'"),
    ("\t0-1\n", "\t0-0\n", "twice"),
    ("\t0-1\n", "\t0-2\n", "pair of species"),
    ("\t0-1\n", "\t01\n", "pair of species"),
    ("\t0-1\n", "\t-1-1\n", "pair of species"),
    ("\t0-1\n", "\t0x-1\n", "pair of species"),
    ("\t0-1\n", "\t0-1y\n", "pair of species"),
    ("alpha_moments_count = 18", "alpha_moments_count = 10", "outside 1 to 10"),
    ("alpha_moments_count = 18", "alpha_moments_count = 17", "moment 17 of 17"),
    ("alpha_moments_count = 18", "alpha_moments_count = 99999999", "moments"),
    ("alpha_moments_count = 18", "alpha_moments_count = 9999999999", "expected a number"),
    ("basic_count = 11", "basic_count = 10", "more rows than the 10"),
    ("basic_count = 11", "basic_count = 12", "expected ','"),
    ("basic = {{0, 0, 0, 0}", "basic = {{2, 0, 0, 0}", "radial function 2"),
    ("basic = {{0, 0, 0, 0}", "basic = {{-1, 0, 0, 0}", "radial function -1"),
    ("basic = {{0, 0, 0, 0}", "basic = {{0, -1, 0, 0}", "exponent"),
    ("basic = {{0, 0, 0, 0}", "basic = {{0, 65, 0, 0}", "exponent"),
    ("basic = {{0, 0, 0, 0}", "basic = {{0, 2147483647, 2147483647, 0}", "exponent"),
    ("basic = {{0, 0, 0, 0}", "basic = {{0, 0, 0}", "expected 4 numbers, found 3"),
    ("times_count = 14", "times_count = 13", "more rows than the 13"),
    ("times_count = 14", "times_count = 15", "expected ','"),
    ("times_count = 14", "times_count = 99999999", "expected ','"),
    (r"times = \{\{\d+", "times = {{18", "moment 18 of 18"),
    (r"times = \{\{\d+", "times = {{-1", "moment -1 of 18"),
    (r"times = \{(\{\d+, \d+, \d+), \d+", r"times = {\1, 0", "basic moment|has read"),
    (r"mapping = \{0", "mapping = {18", "moment 18 of 18"),
    (r"mapping = \{0", "mapping = {-1", "moment -1 of 18"),
    ("scalar_moments = 9", "scalar_moments = 8", "expected 8 numbers, found 9"),
    ("scalar_moments = 9", "scalar_moments = 10", "expected 10 numbers, found 9"),
    ("scalar_moments = 9", "scalar_moments = 0", "outside"),
    (r"species_coeffs = \{", "species_coeffs = {nan, ", "not a finite number"),
    (r"species_coeffs = \{", "species_coeffs = {1, ", "expected 2 numbers, found 3"),
    (r"moment_coeffs = \{", "moment_coeffs = {-inf, ", "not a finite number"),
    (r"moment_coeffs = \{", "moment_coeffs = {0x1p3, ", "expected a number"),
    (r"moment_coeffs = \{", "moment_coeffs = {{", "expected a number"),
    (r"\}$", "} more", "unexpected 'more'"),
    ("e-01, ", "e-01 ", "expected ','"),
]


@pytest.mark.parametrize(("pattern", "replacement", "message"), CONTRADICTIONS)
def test_a_contradiction_is_named(pattern, replacement, message, potential, tmp_path):
    text = text_of(potential, tmp_path)
    wrong, n = re.subn(pattern, replacement, text, count=1)
    assert n == 1
    path = tmp_path / "wrong.mtp"
    path.write_text(wrong)
    refused(path, message)


def test_the_line_of_a_mistake_is_named(potential, tmp_path):
    lines = text_of(potential, tmp_path).split("\n")
    path = tmp_path / "wrong.mtp"
    for number, line in enumerate(lines, start=1):
        if not re.search(r"\d", line) or "version" in line or "potential_" in line:
            continue
        where = re.search(r"(?<![\w.+-])-?\d", line).start()
        path.write_text("\n".join([*lines[: number - 1], line[:where] + "?" + line[where:], *lines[number:]]))
        refused(path, r"\?", line=number)


def test_products_out_of_order_are_refused(potential, tmp_path):
    text = text_of(potential, tmp_path)
    table = re.search(r"alpha_index_times = \{(.*)\}", text)[1]
    rows = [[int(x) for x in row.split(", ")] for row in re.findall(r"\{(.*?)\}", table)]
    later = next(k for k, row in enumerate(rows) if max(row[:2]) >= potential.facts.n_basic)
    rows.insert(0, rows.pop(later))
    path = tmp_path / "wrong.mtp"
    path.write_text(text.replace(table, ", ".join("{" + ", ".join(map(str, row)) + "}" for row in rows)))
    refused(path, "an earlier row has read")


def survives(path, atoms):
    """A damaged file is refused with its name; one that is still a potential can be evaluated, unless it overflows."""
    try:
        potential = Potential.load(path)
    except LibraryError as error:
        message = str(error)
    else:
        potential.species = sorted(set(atoms.symbols))
        try:
            potential.evaluate(atoms)
            if potential.facts.active_set:
                potential.grade(atoms)
        except LibraryError as error:
            assert "not finite" in str(error)
        return True
    assert message.startswith(str(path)), message
    return False


def test_no_token_changed_at_random_does_harm(potential, random_atoms, tmp_path):
    text, atoms = text_of(potential, tmp_path), random_atoms(("Cu", "O"))
    tokens = list(re.finditer(r"[^\s{},=]+|[{},=]", text))
    rng = np.random.default_rng(1)
    path = tmp_path / "changed.mtp"
    substitutes = [
        "",
        "x",
        "-1",
        "nan",
        "1e99",
        "{",
        "}",
        ",",
        "=",
        "2147483647",
        "-2147483648",
        "4294967296",
    ]
    refusals = 0
    for n in range(600):
        token = tokens[rng.integers(len(tokens))]
        substitute = substitutes[n % len(substitutes)]
        path.write_text(text[: token.start()] + substitute + text[token.end() :])
        refusals += not survives(path, atoms)
    assert refusals > 400  # most changes contradict the format; those of a coefficient or a free text do not


def test_no_byte_changed_at_random_does_harm(graded, random_atoms, tmp_path):
    whole, atoms = bytes_of(graded, tmp_path), random_atoms(("Cu",))
    rng = np.random.default_rng(2)
    path = tmp_path / "changed.almtp"
    for _ in range(400):
        changed = bytearray(whole)
        for _ in range(int(rng.integers(1, 4))):
            changed[rng.integers(len(changed))] = rng.integers(256)
        path.write_bytes(changed)
        survives(path, atoms)


@pytest.mark.parametrize(
    ("pattern", "replacement"),
    [
        ("alpha_moments_count = 18", "alpha_moments_count = 99999999"),
        ("times_count = 14", "times_count = 99999999"),
        ("species_count = 2", "species_count = 1000"),
        ("radial_basis_size = 8", "radial_basis_size = 1000"),
        (
            "species_count = 2(.*)size = 8(.*)count = 2\n",
            r"species_count = 1000\1size = 1000\2count = 1000\n",
        ),
        ("species_count = 2(.*)size = 8(.*)count = 2\n", r"species_count = 64\1size = 1000\2count = 1000\n"),
    ],
)
@pytest.mark.parametrize("trained", [True, False])
def test_a_huge_count_takes_no_memory(pattern, replacement, trained, potential, tmp_path):
    text = text_of(potential if trained else Potential.new(8, 2, 5.0), tmp_path).replace("elements:Cu,O", "")
    wrong, n = re.subn(pattern, replacement, text, count=1, flags=re.DOTALL)
    assert n == 1
    (tmp_path / "huge.mtp").write_text(wrong)
    script = """
        import resource, sys
        from mtp.errors import LibraryError
        from mtp.potential import Potential
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            Potential.load(sys.argv[1])
        except LibraryError as error:
            assert str(error).startswith(sys.argv[1]), error
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), tmp_path / "huge.mtp"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 50_000  # kB; the tables that the counts announce would take 100 MB at least


# ---- damaged active sets


def test_a_truncated_active_set_is_refused(graded, tmp_path):
    whole = bytes_of(graded, tmp_path)
    begin = whole.index(b"#MVS_v1.1")
    path = tmp_path / "short.almtp"
    for end in [*range(begin + 1, begin + 100, 7), *np.linspace(begin + 100, len(whole) - 1, 30).astype(int)]:
        path.write_bytes(whole[:end])
        refused(path)


def test_the_active_set_of_another_potential_is_refused(graded, random_potential, random_atoms, tmp_path):
    larger = random_potential(("Cu",), level=8, n_chebyshev=4)
    larger.select([random_atoms(("Cu",), seed=k) for k in range(4)])
    heads, tails = zip(*(bytes_of(p, tmp_path).split(b"#MVS_v1.1") for p in (graded, larger)), strict=True)
    path = tmp_path / "mixed.almtp"
    path.write_bytes(heads[0] + b"#MVS_v1.1" + tails[1])
    refused(path, "damaged|does not belong")
    path.write_bytes(heads[1] + b"#MVS_v1.1" + tails[0])
    refused(path, "truncated or does not belong")


@pytest.mark.parametrize("place", [0.0, 0.3, 0.7, 0.99])
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e3, -1e300])
def test_a_damaged_matrix_is_refused(place, value, graded, tmp_path):
    whole = bytearray(bytes_of(graded, tmp_path))
    matrices = 2 * graded.facts.n_parameters**2
    number = int(place * matrices)
    # not an element that its counterpart multiplies by zero: such a change is within the tolerated error
    start = len(whole) - 8 * (matrices - number)
    whole[start : start + 8] = np.float64(value).tobytes()
    path = tmp_path / "damaged.almtp"
    path.write_bytes(whole)
    refused(path, "damaged")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"site_en_weight 1", b"site_en_weight 0", "weights"),
        (b"energy_weight 0", b"energy_weight 1", "weights"),
        (b"force_weight 0", b"force_weight 1", "weights"),
        (b"stress_weight 0", b"stress_weight 0.1", "weights"),
        (b"site_en_weight 1", b"site_en_weight 2", "weights"),
        (b"site_en_weight 1", b"site_en_weight x", "expected a number"),
        (b"site_en_weight", b"site_weight", "unknown word 'site_weight'"),
    ],
)
def test_an_active_set_of_another_kind_is_refused(old, new, message, graded, tmp_path):
    whole = bytes_of(graded, tmp_path)
    assert whole.count(old) == 1
    (tmp_path / "other.almtp").write_bytes(whole.replace(old, new))
    refused(tmp_path / "other.almtp", message)


def test_the_line_of_a_mistake_in_the_header_of_an_active_set_is_named(graded, tmp_path):
    whole = bytes_of(graded, tmp_path).replace(b"stress_weight", b"stres_weight")
    (tmp_path / "other.almtp").write_bytes(whole)
    refused(tmp_path / "other.almtp", "stres_weight", line=whole[: whole.index(b"stres_weight")].count(b"\n") + 1)


@pytest.mark.parametrize("name", ["neighbourhood", "configuration"])
def test_a_damaged_als_file_is_refused(name, shared_data, tmp_path):
    whole = (shared_data / "reference" / f"cubic_08_{name}.als").read_bytes()
    begin = whole.index(b"\n^") + 2
    n = 26
    path = tmp_path / "damaged.als"
    for end in (begin, begin + 20, begin + 33, begin + 34, begin + 1000, begin + 34 + 2 * n * n * 8 - 1):
        path.write_bytes(whole[:end])
        refused(path)
    weights = np.array([1.0, 1.0, 0.0, 0.0]).tobytes()
    path.write_bytes(whole[:begin] + weights + whole[begin + 32 :])
    refused(path, "weights")
    path.write_bytes(whole[: begin + 33] + b"?" + whole[begin + 34 :])
    refused(path, "#")


# ---- writing


def test_a_place_that_cannot_be_written_is_named(graded, tmp_path):
    (tmp_path / "folder.mtp").mkdir()
    for path in (tmp_path / "missing" / "a.mtp", tmp_path / "folder.mtp", tmp_path / ("x" * 300 + ".mtp")):
        with pytest.raises(LibraryError, match="cannot be") as caught:
            graded.save(path)
        assert str(caught.value).startswith(f"{path}: ")
    assert [p.name for p in tmp_path.iterdir()] == ["folder.mtp"]


def test_a_name_that_does_not_tell_the_format_is_refused(graded, tmp_path):
    for name in ("a", "a.als", "a.mtp.gz", "a.MTP"):
        with pytest.raises(Error, match=re.escape(name)):
            graded.save(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_an_active_set_that_is_not_there_is_not_written(potential, tmp_path):
    with pytest.raises(LibraryError, match="no active set"):
        potential.save(tmp_path / "a.almtp")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", ["mtp", "almtp"])
def test_a_full_disk_leaves_the_old_file(suffix, graded, tmp_path):
    path = tmp_path / f"a.{suffix}"
    graded.save(path)
    before = path.read_bytes()
    script = """
        import resource, signal, sys
        from mtp.errors import LibraryError
        from mtp.potential import Potential
        path, limit = sys.argv[1], int(sys.argv[2])
        potential = Potential.load(path)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # as a full disk: write() fails
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        try:
            potential.save(path)
        except LibraryError as error:
            assert str(error).startswith(path + ": cannot be written: "), error
            sys.exit(9)
    """
    for limit in (0, 100, len(before) - 1):
        command = [sys.executable, "-c", textwrap.dedent(script), path, str(limit)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 9, done.stderr
        assert path.read_bytes() == before
        assert [p.name for p in tmp_path.iterdir()] == [path.name]
