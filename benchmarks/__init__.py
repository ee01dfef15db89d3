"""What explanations cost: SegLens, Captum, MONAI and a straight loop, side by side (``python -m benchmarks``).

``scenes`` has the networks, images and targets, ``questions`` what is asked of them, ``ours`` and ``peers`` how each
contender answers, ``accuracy`` how many passes equal accuracy takes, ``worker`` measures one contender in a process of
its own, ``compare`` sets the answers side by side, ``table`` writes the Markdown. Apart: ``memory_20k.py``.
"""
