"""What drives training and inference around MONAI's engines: seeds, checkpoints, steps, metrics, windows."""
