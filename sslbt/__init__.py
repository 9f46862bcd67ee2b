"""Self-supervised learning for brain tumour classification from few labelled MRI slices."""

__version__ = "0.1.0"
