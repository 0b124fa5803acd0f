"""What a training tells people, in plain lines on standard error."""

import sys
from typing import Any


def plain(line: dict[str, Any]) -> None:
    """Print one report of the training loop."""
    print(text(line), file=sys.stderr, flush=True)


def text(line: dict[str, Any]) -> str:
    """One report as a line.

    >>> text({"step": 1200, "seconds": 30.5, "val_loss": 1.7, "bits_per_character": 2.4526})
    'step  1,200    30.5 s  val_loss 1.7000  bits_per_character 2.4526'
    """
    if "note" in line:
        return str(line["note"])
    parts = [f"step {line['step']:>6,}  {line['seconds']:>6.1f} s"]
    if "train_loss" in line:
        parts.append(f"train {line['train_loss']:.4f}")
        parts.append(f"gradient {line['gradient_norm']:.2f}")
        parts.append(f"lr {line['learning_rate']:.1e}")
        parts.append(f"{line['tokens_per_second']:,.0f} tokens/s")
    parts += [
        f"{name} {value:.4f}" if isinstance(value, float) else f"{name} {value}"
        for name, value in line.items()
        if name not in ("step", "seconds", "train_loss", "gradient_norm", "learning_rate", "tokens_per_second")
    ]
    return "  ".join(parts)
