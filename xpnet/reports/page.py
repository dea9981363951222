"""The page of a report, from its subjects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from xpnet import plots
from xpnet.plots.figures import encoded, smaller
from xpnet.reports import contents, markup
from xpnet.reports.subject import Subject
from xpnet.training.records import measures_of


def report_page(subjects: Sequence[Subject], version: str) -> str:
    """Return one HTML page about runs of one task, which needs no other file.  version: of xpnet, which wrote it."""
    names = [subject.name for subject in subjects]
    title = f"Run {names[0]}" if len(names) == 1 else f"Runs {', '.join(names[:-1])} and {names[-1]}"
    return markup.page(title, _parts(subjects, title, version))


def _parts(subjects: Sequence[Subject], title: str, version: str) -> Iterator[str]:
    names = [subject.name for subject in subjects]
    yield markup.heading(1, title)
    yield markup.paragraph(f"{subjects[0].task[:1].upper()}{subjects[0].task[1:]}.")
    for subject in subjects:
        if subject.note:
            yield markup.paragraph(f"{subject.name}: {subject.note}", "note")
    yield markup.heading(2, "Results")
    yield markup.table(["", *names], *contents.results(subjects))
    differ, shared = contents.settings(subjects)
    yield markup.heading(2, "Settings")
    if len(subjects) > 1:
        same = markup.paragraph("The runs have the same settings.")
        yield markup.table(["setting that differs", *names], differ) if differ else same
    yield markup.folded("All settings" if len(subjects) == 1 else "Settings in common", markup.table([], shared))
    yield markup.heading(2, "Curves")
    yield markup.pictures(_curves(subjects), "curve")
    for number, subject in enumerate(subjects):
        yield markup.heading(2, f"Model of {subject.name}")
        yield from _model(subject, f"run{number}-")
    yield markup.paragraph(f"Written by xpnet {version} from config.json, history.jsonl and the model of each run.")


def _model(subject: Subject, prefix: str) -> Iterator[str]:
    yield markup.table([], contents.card(subject))
    for head, rows in contents.details(subject.details):
        yield markup.table(head, rows)
    if subject.pictures:
        yield markup.pictures(subject.pictures, prefix)
    if subject.table is not None:
        rows, decided = contents.features(subject.table)
        yield markup.heading(3, "Columns")
        yield markup.table(["column", "kind", "features", "of the training rows"], rows)
        for line in decided:
            yield markup.paragraph(line)


def _curves(subjects: Sequence[Subject]) -> Iterator[tuple[str, bytes]]:
    """Yield the curves of one run, or those of each measure that all runs have in one picture."""
    first, histories = subjects[0].history, {subject.name: subject.history for subject in subjects}
    if len(subjects) == 1:
        drawn = {"Loss": plots.loss_curve(first)}
        drawn |= {"Scores": plots.score_curve(first)} if plots.score_names(first) else {}
    else:
        common = set(measures_of(first)).intersection(*map(measures_of, histories.values()))
        drawn = {name: plots.measure_of_runs(histories, name) for name in measures_of(first) if name in common}
    for caption, ax in drawn.items():
        smaller(ax)
        yield caption, encoded(ax.figure, ".svg")
