"""`unrolled bench`: this package beside PyTorch and ONNX Runtime on the machine at hand, in one process, taking turns.

measure.py     contenders that take turns, medians, geometric means
machine.py     the matrix peak and the memory bandwidth as measured here, and who else was busy
peers.py       the competitors in training: `torch.nn` eager, one-hot, compiled
training.py    suites "training" and "small": training steps, and the layers alone
writers.py     the competitors in generation: PyTorch's layers and cells, compiled, ONNX Runtime
generation.py  suite "generation"
memory.py      suite "memory": a process for each measurement
command.py     the command, and the files it writes
suites.py      which suites there are, and what a run of them returns
report.py      Markdown
roofline.py    the picture

Every suite returns rows of plain values, ready for JSON; nothing here imports torch before it is called.
"""
