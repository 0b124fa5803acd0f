"""The names of columns that tasks know by themselves, in any case. A table whose first row has one has a header."""

TEXT = ("text", "sentence", "document", "review", "comment")
LABEL = ("label", "class", "category", "sentiment")
SOURCE = ("source", "src")
TARGET = ("target", "tgt")
CAPTION = ("caption", "captions", "text", "sentence", "description", "comment")
PATH = ("path", "file", "file_name", "filename", "clip", "video", "image", "image_name")
GROUP = ("group", "speaker", "signer", "subject", "person")
START = ("start_frame", "start", "begin_frame", "begin")
END = ("end_frame", "end", "stop_frame", "stop")
FRAME = ("frame", "frame_number")
SPLIT = ("split",)
NAMES = frozenset((*TEXT, *LABEL, *SOURCE, *TARGET, *CAPTION, *PATH, *GROUP, *START, *END, *FRAME, *SPLIT))
