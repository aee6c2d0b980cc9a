"""Data: from any layout of labelled pictures to batches, with every problem named on the way.

`formats` reads layouts into records (`records`), `ingest` turns them into shards of a data set (`store`), `preparation`
checks, cleans, splits and judges them, `report` tells what is there. In training `order` says which samples make a
step,
and `loader` makes its batches in processes of its own (`worker`), from `recognition_samples` or `detection_samples`.
"""
