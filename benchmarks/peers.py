"""The same job with other libraries' augmentation, each in the form that is fastest for it."""

import math

import kornia.augmentation as K
import monai.transforms as M
import numpy as np
import torch
from job import Job, Step
from monai.data import set_track_meta
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from sslbt.training.augment import STRONG

ZOOM = 1 / math.sqrt(STRONG.crop)  # at most; one affine map crops, resizes and rotates in one resampling, as ours does
SHIFT = (1 - math.sqrt(STRONG.crop)) / 2  # share of the side
GAMMA = (2**-STRONG.gamma, 2**STRONG.gamma)


class Views(Dataset):
    """(c1) Two views of a slice by MONAI's transforms, which take one slice at a time, from pixels held in memory."""

    def __init__(self, pixels: Tensor, groups: np.ndarray) -> None:
        set_track_meta(False)  # plain tensors: faster
        self.pixels, self.groups = pixels, torch.from_numpy(groups)
        size = pixels.shape[-1]
        self.change = M.Compose(
            [
                M.RandAffine(
                    prob=1,
                    rotate_range=math.radians(STRONG.rotation),
                    translate_range=SHIFT * size,
                    scale_range=(math.sqrt(STRONG.crop) - 1, 0),
                    spatial_size=(size, size),
                    mode="bilinear",
                    padding_mode="zeros",
                    cache_grid=True,
                ),
                M.RandFlip(STRONG.flip, spatial_axis=1),
                M.RandAdjustContrast(1, GAMMA),
                M.RandBiasField(degree=2, coeff_range=(-STRONG.bias, STRONG.bias), prob=1),
                M.RandGaussianNoise(1, std=STRONG.noise),
            ]
        )

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        one = self.pixels[row].unsqueeze(0).float().div_(255)
        return self.change(one), self.change(one), torch.tensor(True), self.groups[row]

    def __len__(self) -> int:
        return len(self.pixels)


class Monai:
    """(c1) with a DataLoader; a round is one pass, so that nothing is made ready outside of it."""

    def __init__(self, job: Job, workers: int) -> None:
        task = job.task()
        self.step = Step(task, job.cfg.learning_rate)
        rows = task.plan(np.random.default_rng(0))[..., 0].ravel()
        gpu = self.step.device.type == "cuda"
        self.loader = DataLoader(
            Views(job.feed.pixels[torch.from_numpy(task.rows)].cpu(), task.pairs.groups),
            batch_size=task.batch,
            sampler=rows.tolist(),
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=gpu,
            generator=torch.Generator(),
        )

    def __call__(self) -> None:
        for batch in self.loader:
            self.step(*(part.to(self.step.device, non_blocking=True) for part in batch))


class Kornia:
    """(c2) Kornia's augmentation of whole batches on the device, from pixels held there; it has no bias field."""

    def __init__(self, job: Job) -> None:
        self.task = job.task()
        self.step, self.plan = Step(self.task, job.cfg.learning_rate), self.task.plan(np.random.default_rng(0))
        self.pixels = job.feed.pixels[torch.from_numpy(self.task.rows)].to(self.step.device)
        self.change = torch.nn.Sequential(
            K.RandomAffine(STRONG.rotation, translate=(SHIFT, SHIFT), scale=(1.0, ZOOM), p=1),
            K.RandomHorizontalFlip(STRONG.flip),
            K.RandomGamma(GAMMA, p=1),
            K.RandomGaussianNoise(std=STRONG.noise, p=1),
        )

    def __call__(self) -> None:
        for pairs in self.plan:
            rows = torch.from_numpy(pairs[:, 0])
            slices = self.pixels[rows.to(self.pixels.device)].unsqueeze(1).float().div_(255)
            groups = torch.from_numpy(self.task.pairs.groups[pairs[:, 0]]).to(slices.device)
            with torch.no_grad():
                first, second = self.change(slices), self.change(slices)
            self.step(first, second, groups == groups, groups)
