"""Which suites there are, and a run of them."""

from collections.abc import Callable
from typing import Any

from unrolled.app.bench.measure import FULL, QUICK, Effort
from unrolled.errors import InputError

SUITES = ("training", "small", "generation", "memory")
Say = Callable[[str], None]


def chosen(suite: str) -> tuple[str, ...]:
    """The suites that a name stands for. Raises `InputError` for a name that is none."""
    if suite != "all" and suite not in SUITES:
        raise InputError(f"unknown suite {suite!r}: choose one of {', '.join(SUITES)}, all")
    return SUITES if suite == "all" else (suite,)


def run(
    names: tuple[str, ...],
    *,
    quick: bool,
    engine: str = "auto",
    say: Say = lambda line: None,
    done: Callable[[dict[str, Any]], None] = lambda results: None,
) -> dict[str, Any]:
    """Run suites one after the other; `done` gets the results so far after each, so that a stop loses little."""
    from unrolled.app.bench.machine import Watch, describe

    effort = QUICK if quick else FULL
    say("measuring the machine")
    results: dict[str, Any] = {"quick": quick, "engine": engine, "suites": list(names), "machine": describe(effort)}
    results["idle"] = {}
    for name in names:
        say(f"suite {name}")
        watch = Watch()
        results |= _suite(name)(effort, engine, say)
        results["idle"][name] = watch.stop()
        if warning := results["idle"][name]["warning"]:
            say(f"warning: {warning}")
        done(results)
    return results


def _suite(name: str) -> Callable[[Effort, str, Say], dict[str, Any]]:
    from unrolled.app.bench import generation, memory, training

    return {
        "training": training.training_suite,
        "small": training.small_suite,
        "generation": generation.generation_suite,
        "memory": memory.memory_suite,
    }[name]
