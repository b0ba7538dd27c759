"""Logs of other tools: read as they are meant, or refused in one short line."""

import datetime
import gzip
import json
import os
import re
import time
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
import torch

import grokinterp as gi

SLOWEST = 3.0  # seconds of this process that a refusal may take


def grokked(step=10, rows=201):
    """Train accuracy rises in 21 rows, test accuracy around row 120."""
    row = np.arange(rows)
    return pd.DataFrame(
        {
            "step": row * step,
            "train_acc": np.minimum(row / 20, 1),
            "test_acc": 1 / (1 + np.exp(-(row - 120) / 6)),
        }
    )


@pytest.fixture
def refusal(run, tmp_path):
    """The one line with which `grokinterp phases` refuses a file."""
    gi.detect_phases(grokked())  # what it imports is not the file's fault

    def refuse(content, name="log.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        before = time.process_time()
        status, out, err = run("phases", path)
        assert time.process_time() - before < SLOWEST
        assert (status, out) == (2, "")
        assert len(err.splitlines()) == 1
        line = err.removeprefix("grokinterp: ").rstrip("\n")
        assert line.startswith(str(path))
        assert len(line) <= 400
        return line.removeprefix(str(path))

    return refuse


@pytest.fixture
def phases(run, tmp_path):
    """What `grokinterp phases --json` says of a file."""

    def read(content, name="log.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        status, out, err = run("phases", path, "--json")
        assert (status, err) == (0, "")
        return json.loads(out)

    return read


class TestColumns:
    @pytest.mark.parametrize("column", ["step", "train_acc", "test_acc"])
    def test_one_that_is_used_and_stands_twice_is_refused(self, column, refusal):
        frame = grokked()
        frame.insert(0, "again", 0.0)
        text = frame.to_csv(index=False).replace("again", column, 1)
        assert f"has two columns '{column}'; keep one" in refusal(text)
        spaced = frame.to_csv(index=False).replace("again", f" {column} ", 1)
        assert f"has two columns '{column}'" in refusal(spaced)
        frame.columns = [column, *frame.columns[1:]]
        with pytest.raises(gi.InputError, match=f"two columns '{column}'"):
            gi.detect_phases(frame)

    def test_others_are_named_and_left_out_twice_or_once(self, phases):
        frame = grokked()
        expected = phases(frame.to_csv(index=False))
        assert not any("left out" in reason for reason in expected["reasons"])
        text = frame.assign(lr=1.0, x=2.0).to_csv(index=False).replace("x", "lr", 1)
        found = phases(text)
        said = [reason for reason in found["reasons"] if "left out" in reason]
        assert len(said) == 1
        assert said[0].endswith("lr, lr")
        said = dict.fromkeys(("reasons", "notes"))
        assert found | said == expected | said

    def test_a_thousand_names_are_shortened(self):
        frame = grokked().join(pd.DataFrame(0.0, range(201), [f"c{i}" for i in range(900)]))
        (said,) = [x for x in gi.detect_phases(frame).reasons if "left out" in x]
        listed = said.partition(": ")[2]
        assert listed.startswith("c0, c1, ")
        assert listed.endswith("more")
        assert len(listed) <= 80

    def test_the_index_that_pandas_writes_has_no_name_to_say(self, phases):
        reasons = phases(grokked().to_csv())["reasons"]
        assert not any("left out" in reason for reason in reasons)

    def test_a_run_names_none(self, tiny_run):
        assert not any("left out" in reason for reason in gi.detect_phases(tiny_run).reasons)

    @pytest.mark.parametrize(
        ("header", "message"),
        [
            ("i,Test_Acc", "no column 'step' (found: i, Test_Acc)"),
            ("step,accuracy of test", "none of the columns train_loss"),
            ("step;accuracy of test", "none of the columns train_loss"),
            ("i\ttest_acc", "--columns step=i"),
        ],
    )
    def test_what_is_missing_is_said_with_what_is_there(self, header, message, refusal):
        separator = next((x for x in ";\t" if x in header), ",")
        text = f"{header}\n0{separator}0.5\n1{separator}0.5\n"
        assert message in refusal(text)

    def test_those_of_a_log_beside_weights_are_named_too(self, tiny_run, tmp_path):
        torch.save(tiny_run.weights(), tmp_path / "x_step_5.pt")
        log = "step,train_loss,lr\n0,4.0,1\n5,1.0,1\n"
        (tmp_path / "x_step_5.csv").write_text(log)
        notes = gi.load(tmp_path / "x_step_5.pt").notes
        assert [note for note in notes if "left out" in note and note.endswith(": lr")]
        (tmp_path / "twice.csv").write_text(log.replace("lr", "step"))
        with pytest.raises(gi.InputError, match="two columns 'step'"):
            gi.load(tmp_path / "x_step_5.pt", metrics=str(tmp_path / "twice.csv"))


class TestSteps:
    @pytest.mark.parametrize("spacing", [0.25, 0.1, 1 / 3, 2.5, 0.004])
    def test_fractions_that_are_evenly_spaced_are_kept(self, spacing):
        whole = gi.detect_phases(grokked(step=1))
        found = gi.detect_phases(grokked(step=spacing))
        assert found.label == whole.label == "grokked"
        assert found.margin.intervals == whole.margin.intervals
        for name in ("memorization_step", "grok_step", "t_train", "t_test"):
            assert getattr(found, name) == pytest.approx(getattr(whole, name) * spacing)
        for one, other in zip(found.phases, whole.phases, strict=True):
            assert one.start == pytest.approx(other.start * spacing)
            assert (one.end_interval is None) == (other.end_interval is None)
            expected = [x * spacing for x in other.end_interval or ()]
            assert list(one.end_interval or ()) == pytest.approx(expected)
        assert any("evenly spaced" in reason for reason in found.reasons)
        assert json.loads(json.dumps(found.to_dict()))["grok_step"] == found.grok_step
        assert list(found.table()["start"]) == [phase.start for phase in found.phases]
        assert len(found.plot().data) >= 2

    def test_as_the_file_gives_them(self, phases, run, tmp_path):
        found = phases(grokked(step=0.25).to_csv(index=False))
        assert (found["memorization_step"], found["grok_step"]) == (5.0, 34.5)
        _, out, _ = run("phases", tmp_path / "log.csv")
        assert "grok_step          34.5\n" in out

    def test_rounded_ones_are_even_and_whole_ones_are_whole(self):
        frame = grokked(step=0.128)
        frame["step"] = frame["step"].round(2)  # as the epochs of a trainer are written
        assert gi.detect_phases(frame).label == "grokked"
        found = gi.detect_phases(grokked().astype({"step": float}))
        assert type(found.grok_step) is int
        assert not any("spaced" in reason for reason in found.reasons)

    @pytest.mark.parametrize("steps", [[0, 0.25, 0.75, 3], [0.5, 1, 4, 9], [0, 1, 2.5, 3], [0.5]])
    def test_other_fractions_are_refused(self, steps, refusal):
        frame = pd.DataFrame({"step": steps, "test_acc": 0.5})
        line = refusal(frame.to_csv(index=False))
        assert "steps that are not whole numbers from 0 on" in line
        assert "evenly spaced" in line

    @pytest.mark.parametrize(
        "first", ["2026-01-01", "2026-01-01 10:30:00", "2026/1/1", "01.02.2026", "00:01:30"]
    )
    def test_dates_are_refused(self, first, refusal):
        line = refusal(f"step,test_acc\n{first},0.5\n{first},0.6\n")
        assert f"'{first}' in row 1, a date or time" in line

    @pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
    def test_so_are_they_in_a_frame(self, unit):
        dates = pd.date_range("2026-01-01", periods=201, freq="s").astype(f"datetime64[{unit}]")
        for steps in (dates, dates - dates[0], dates.to_period("s"), list(dates.date)):
            with pytest.raises(gi.InputError, match=r"'step' has .* a date or time"):
                gi.detect_phases(grokked().assign(step=steps))

    @pytest.mark.parametrize("unit", [1, 1e3, 1e6])
    @pytest.mark.parametrize("part", [0, 0.25])
    def test_seconds_since_1970_are_no_steps(self, unit, part):
        steps = (1767225600 + 60 * np.arange(201) + part) * unit
        with pytest.raises(gi.InputError, match=r"since 1970 .* is 2026-01-01"):
            gi.detect_phases(grokked().assign(step=steps))

    def test_nor_are_days(self):
        days = pd.date_range("2025-12-01", periods=201).strftime("%Y%m%d").astype(int)
        with pytest.raises(gi.InputError, match="dates such as 20251201"):
            gi.detect_phases(grokked().assign(step=np.asarray(days)))

    @pytest.mark.parametrize("steps", [
        np.arange(201) * 10**7,  # counts of tokens
        1_500_000_000 + np.arange(201) * 10**6,  # those of a log that begins late
        20_250_000 + np.arange(201) * 100,
        np.arange(201) * 3600,
    ])  # fmt: skip
    def test_what_may_be_steps_is_taken_for_steps(self, steps):
        found = gi.detect_phases(grokked().assign(step=steps))
        assert found.curves["step"].tolist() == steps.tolist()

    @pytest.mark.parametrize("step", ["inf", "1e400", "-1", "1e30", "9007199254740994"])
    def test_beyond_the_range_of_steps(self, step, refusal):
        assert "has step" in refusal(f"step,test_acc\n0,0.5\n{step},0.5\n")


class TestCells:
    @pytest.mark.parametrize("column", ["step", "test_loss", "test_acc"])
    @pytest.mark.parametrize(
        "cell",
        ["9" * 400, "9" * 5000, "0x10", "1_000", "\uff11\uff12", "1,5", "1,000", "True", "a" * 500,
         "--", "1.0f", "1d5", "½", "12%", "1e", "1 2", "a\nb", "=1+1", "[1]"],
    )  # fmt: skip
    def test_what_is_no_number_is_refused_with_its_row(self, cell, column, refusal):
        rows = pd.DataFrame({"step": [0, 1, 2], "test_loss": [3, 2, 1], "test_acc": [0, 0, 1]})
        rows = rows.astype(object)
        rows.loc[1, column] = cell
        line = refusal(rows.to_csv(index=False))
        assert f"column '{column}' has " in line
        assert "in row 2, " in line or "give accuracies as shares" in line  # too large for a float
        quoted = line.partition(" has ")[2].partition(" in row")[0]
        assert len(quoted) <= 80 or "in row" not in line

    @pytest.mark.parametrize("cell", ["", "nan", "NaN", "null", "None", "NA", " "])
    def test_what_is_empty_is_not_there(self, cell, phases):
        found = phases(f"step,train_acc,test_acc\n0,0,0\n1,{cell},0\n2,1,0\n3,1,0\n")
        assert found["label"] == "memorized"

    @pytest.mark.parametrize("cell", ["+.5", "5e-1", ".5", '"0.5"', " 0.5 ", "0.5" + "0" * 30])
    def test_numbers_in_other_words(self, cell):
        (value,) = gi.detect_phases(pd.DataFrame({"step": [0], "test_acc": [0.5]})).curves.test_acc
        text = pd.DataFrame({"step": ["0"], "test_acc": [cell.strip('"')]})
        if len(cell) < 20:
            assert gi.detect_phases(text).curves.test_acc[0] == value

    @pytest.mark.parametrize(
        "values", [[Decimal(0), Decimal(1)], [np.float16(0), 1], pd.array([0, 1], "Int64"),
                   pd.array([0.0, 1.0], "Float32"), pd.Categorical([0.0, 1.0]), ["0", "1"]],
    )  # fmt: skip
    def test_frames_whose_numbers_are_of_another_type(self, values):
        frame = pd.DataFrame({"step": pd.array([0, 1], "UInt8"), "test_acc": values})
        assert gi.detect_phases(frame).curves.test_acc.tolist() == [0, 1]

    @pytest.mark.parametrize("value", [True, 1j, b"1", [1], {}, 10**400, datetime.date.today()])
    def test_frames_with_what_is_no_number(self, value):
        with pytest.raises(gi.InputError, match=r"'test_acc' has .* in row 1"):
            gi.detect_phases(pd.DataFrame({"step": [0], "test_acc": pd.Series([value])}))

    @pytest.mark.parametrize("column", ["train_acc", "test_acc", "test_acc_unmirrored"])
    def test_accuracies_that_rounding_put_outside_are_0_and_1(self, column, phases):
        frame = grokked().assign(test_acc_unmirrored=grokked()["test_acc"])
        frame[column] = np.where(frame[column] > 0.99, 1 + 1e-6, frame[column] - 1e-6)
        expected = frame.assign(**{column: frame[column].clip(0, 1)})
        found = gi.detect_phases(frame)
        assert found.curves[column].between(0, 1).all()
        assert found.curves.equals(gi.detect_phases(expected).curves)
        assert any(column in x and "are taken as 1" in x for x in found.reasons)
        assert phases(frame.to_csv(index=False))["label"] == "grokked"
        for wrong in (1 + 2e-6, -2e-6, np.inf):
            frame.loc[3, column] = wrong
            with pytest.raises(gi.InputError, match="shares from 0 to 1"):
                gi.detect_phases(frame)


class TestFiles:
    @pytest.mark.parametrize(
        ("content", "said"),
        [
            ("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12\n", "Git-LFS"),
            ("<!DOCTYPE html>\n<html><body>404</body></html>", "an HTML page"),
            ('<?xml version="1.0"?><a/>', "XML"),
            ('[{"step": 0, "test_acc": 1}', "JSON that cannot be read"),
            ('{"what":{"step": [0], "loss of": [1]}}', "none of the columns"),  # begins as
            # safetensors files do: with "{" where these have it
            ('{"step": 0, "test_acc": 1}\n{"step": 1, \n{}\n', "in record 2"),
            (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "a PNG image"),
            (b"%PDF-1.4\n%\xe2\xe3", "a PDF"),
            (b"PAR1\x15\x04\x15", "no whole Parquet file"),
            (gzip.compress(b"step,test_acc\n0,0.1\n", mtime=0)[:-9], "is damaged or cut off"),
            (b"\x18\0\0\0\0\0\0\0\xa3\x7fK\"\t\0\0\xc0\x1a\rbrain.Event:2", "has no scalars"),
            (b"", "is empty"),
            (b"\n\n  \n", "is empty"),
            (b"step,test_acc\n", "has no rows"),
            ("step,test_acc\n0,.1\n".encode("utf-16-le"), "bytes of zero, the first in line 1"),
            (b"step,test_acc\n0,.1\n1,\0\n", "bytes of zero, the first in line 3"),
            ("step,test_acc,größe\n0,.1,1\n".encode("latin-1"), "is not text in UTF-8"),
            (b"step,test_acc\n0,.1\n1,\xed\xa0\x80\n", "is not text in UTF-8"),
            ("step,test_acc\n0,.1\n".encode("utf-16")[:-1], "is not text in UTF-16"),
            ("step,test_acc\n0,.1\n1,.2,.3\n", "line 3 has 3 cells"),
            ("step,test_acc\n0,.1,.2\n1,.2\n", "more cells than its header"),
            ('step,test_acc\n0,.1\n"1,.2\n', "is never closed"),
            ("0,.1\n1,.2\n", "has no header (its first row is 0.0, 0.1)"),
            (",,\n,,\n", "no column 'step' (found: none)"),
        ],
    )  # fmt: skip
    def test_what_is_no_log_is_named(self, content, said, refusal):
        assert said in refusal(content)

    @pytest.mark.parametrize(
        "change",
        [
            lambda text: b"\xef\xbb\xbf" + text.encode(),
            lambda text: text.encode("utf-16"),
            lambda text: text.encode("utf-32"),
            lambda text: text.replace("\n", "\r").encode(),
            lambda text: text.replace("\n", "\r\n").encode(),
            lambda text: text.rstrip("\n").encode(),
            lambda text: text.replace(",", " , ").encode(),
            lambda text: re.sub(r"[^,\n]+", r'"\g<0>"', text).encode(),
            lambda text: ("\n\n" + text.replace("\n", "\n\n")).encode(),
            lambda text: text.replace("\n", ",\n").encode(),
        ],
    )
    def test_the_same_log_written_otherwise_is_the_same(self, change, phases):
        text = grokked().to_csv(index=False)
        assert phases(change(text)) == phases(text)

    def test_rows_that_are_cut_off_lack_their_last_cells(self, phases):
        text = grokked().to_csv(index=False)
        assert phases(text.rstrip("\n").rpartition(",")[0])["label"] == "grokked"

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (b"step,test_acc" + b",x" * 100_000 + b"\n0,.1\n", "has 100002 cells in line 1"),
            (b"step,test_acc" + b",x" * 2000 + b"\n0,.1\n", "has 2002 cells in line 1"),
            (b'step,test_acc' + b',"x"' * 2000 + b"\n0,.1\n", "more than 1000 columns"),
            (b"step,test_acc\n0,.1" + b",1" * 5_000_000 + b"\n", "5000002 cells in line 2"),
            (b"step,test_acc\n0,.1\n0" + b"," * 5_000_000 + b"\n", "5000001 cells in line 3"),
            (b"step,test_acc\n" + (b"0" + b"," * 40_000 + b"\n") * 99, "has 40001 cells in line 2"),
            (b"step,test_acc\n0,.1\n1," + b"1" * 50_000_000 + b"\n", "50000002 characters in"),
            (b'step,test_acc\n0,.1\n1,"' + b"1,\n" * 3_000_000 + b'"\n', "(9000000 characters)"),
            (b"\n" * 50_000_000, "is empty"),
        ],
    )  # fmt: skip
    def test_of_any_size_within_seconds(self, content, said, refusal):
        assert said in refusal(content)

    def test_files_that_are_too_large_are_not_read(self, run, tmp_path):
        path = tmp_path / "sparse.csv"
        with path.open("wb") as file:
            file.write(b"step,test_acc\n")
            file.truncate(2 * 10**9)
        before = time.process_time()
        status, _, err = run("phases", path)
        assert time.process_time() - before < SLOWEST
        assert status == 2
        assert "is 2000 MB large" in err

    def test_what_is_no_file_is_said_and_not_waited_for(self, tiny_run, tmp_path):
        torch.save(tiny_run.weights(), tmp_path / "x.pt")
        os.mkfifo(tmp_path / "pipe.csv")
        wrong = {
            ".": "holds no log",
            "no.csv": "does not exist",
            "pipe.csv": "is a named pipe",
        }
        for name, said in wrong.items():
            path = tmp_path / name
            with pytest.raises(gi.InputError, match=said):
                gi.load(tmp_path / "x.pt", metrics=str(path))
