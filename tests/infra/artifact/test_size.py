import zipfile
from collections import Counter

from dspy_lambda_infra.artifact.size import Size, measure


def test_measure_counts_bytes_by_top_level_name_and_zipped(tmp_path):
    folder = tmp_path / "artifact"
    (folder / "package" / "part").mkdir(parents=True)
    (folder / "package" / "one.py").write_bytes(b"x" * 1000)
    (folder / "package" / "part" / "two.py").write_bytes(b"y" * 500)
    (folder / "main.py").write_bytes(b"z" * 10)
    size = measure(folder)
    assert (size.unzipped, size.parts) == (1510, Counter(package=1500, **{"main.py": 10}))
    with zipfile.ZipFile(tmp_path / "real.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            archive.write(path, path.relative_to(folder))
    # Written as a stream, each of the three files is followed by its sizes, in 16 bytes.
    assert size.zipped == (tmp_path / "real.zip").stat().st_size + 3 * 16 < size.unzipped


def test_the_size_table_lists_the_eight_largest_parts_and_the_remaining_bytes():
    parts = Counter({f"package{n}": n * 1_000_000 for n in range(1, 11)})
    lines = Size(parts.total(), 20_000_000, parts).table(60_000_000).splitlines()
    assert [line.split()[0] for line in lines[:8]] == [f"package{n}" for n in range(10, 2, -1)]
    assert [line.split() for line in lines[8:]] == [
        ["the", "rest", "3.0", "MB"],
        ["unzipped", "55.0", "MB,", "5.0", "left"],
        ["zipped", "20.0", "MB"],
    ]
