"""Every entry point's parameters, with their defaults: `mlflow run` and `sslbt` both read them here."""

from dataclasses import replace
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from sslbt.data.source import BASE_URL, Source
from sslbt.errors import UserError
from sslbt.parameters import PRESETS, Config, from_preset
from sslbt.search import Range, Space, assignments, build_either, read_space

DataName = Annotated[
    str,
    Field(
        description="sample (phantoms; sample:200 for 200 patients), figshare (downloads it), a folder or a zip",
        min_length=1,
    ),
]
SPLITS = "patient, patient:1 to patient:5, official:1 to official:5, slices (leaks patients)"
SplitName = Annotated[
    str,
    Field(
        description=f"{SPLITS}, all (nobody is tested) or none",
        pattern=r"^(patient(:[1-5])?|official:[1-5]|slices|all|none)$",
    ),
]
TrainedSplit = Annotated[
    str,
    Field(description=f"{SPLITS} or all (nobody is tested)", pattern=r"^(patient(:[1-5])?|official:[1-5]|slices|all)$"),
]


def tests_somebody(split: str) -> str:
    """Refuse the split that has nobody to judge by."""
    if split == "all":
        raise ValueError("it tests nobody; give another split, or evaluate other people's slices with split=none")
    return split


JudgedSplit = Annotated[SplitName, Field(description=f"{SPLITS} or none"), AfterValidator(tests_somebody)]
WholeSplit = Annotated[TrainedSplit, Field(description=SPLITS), AfterValidator(tests_somebody)]  # trains and tests
Labels = Annotated[str, Field(description="labelled training slices: 12, 10%, 5p (patients a class), all, or a CSV")]
Seed = Annotated[int, Field(description="weights, batches and the choice of labels follow from it", ge=0, lt=2**31)]
Preset = Annotated[Literal[PRESETS], Field(description="what the parameters marked so are set to")]  # type: ignore[valid-type]
PairKind = Annotated[
    Literal["patient", "views", "label"],
    from_preset("a positive pair: two slices of a patient, two views of a slice, or two slices of a class"),
]
NumPairs = Annotated[int, from_preset("positive pairs an epoch, and as many negative ones", ge=2, le=1_000_000)]

Metric = Annotated[str, Field(description="what the best is best in", pattern=r"^[\w ./-]+$")]
RegistryName = Annotated[str, Field(description="name in the registry", pattern=r"^[\w .-]+$")]


class Data(Config):
    """What every entry point that reads slices has."""

    data: DataName = "sample"
    annotations: Annotated[str, Field(description="a CSV with the columns file, patient, class, for other data")] = ""
    patient_pattern: Annotated[
        str, Field(description="regular expression that finds the patient in a file's name, such as ^(P[0-9]+)_")
    ] = ""
    on_bad: Annotated[
        Literal["stop", "skip"], Field(description="at a slice that can't be used: stop, or leave it out and say so")
    ] = "stop"
    base_url: Annotated[
        str, Field(description="where data=figshare comes from; a mirror's address, {id} and {name} stand for the file")
    ] = BASE_URL

    @property
    def source(self) -> Source:
        """Where the slices come from."""
        return Source(**{name: getattr(self, name) for name in Data.model_fields})


class Judged(Data):
    """What may be done with slices that nothing is trained on."""

    split: SplitName = "patient"

    @property
    def source(self) -> Source:
        """Where the slices come from; where none of them trains, nobody need know whose they are."""
        return replace(super().source, anonymous=self.split == "none")


class Prepare(Judged):
    """Read slices of any source into the cache and show them."""


class Training(Data):
    """What every training has."""

    split: TrainedSplit = "patient"
    preset: Preset = "quick"
    seed: Seed = 0
    epochs: int = from_preset("passes over the data", ge=1, le=100_000)
    batch: int = from_preset("slices (pairs) a step", ge=2, le=65_536)
    learning_rate: float = from_preset("AdamW's highest rate", gt=0, le=10)
    schedule: Literal["cosine", "constant"] = from_preset(
        "the rate by step: warmed up, then along a cosine to zero, or always the same"
    )
    weight_decay: float = from_preset("AdamW's; without any it is Adam", ge=0, le=1)
    compile: bool = from_preset("torch.compile the network first: takes up to a minute, then steps are faster")


class Pretraining(Training):
    """What both ways of pretraining have."""

    size: int = from_preset("side of the slices in pixels, a multiple of 16", ge=32, le=256, multiple_of=16)
    width: int = from_preset("channels of the encoder's first stage", ge=8, le=256, multiple_of=8)


class PretrainEncoder(Pretraining):
    """Pretrain an encoder by restoring hidden regions of unlabelled slices."""

    mask_min: float = from_preset("smallest hidden share of a slice", gt=0.001, lt=1)
    mask_max: float = from_preset("largest hidden share of a slice", gt=0.001, lt=1)

    @field_validator("mask_max")
    @classmethod
    def _not_below(cls, value: float, info: ValidationInfo) -> float:
        if value < info.data.get("mask_min", 0):
            raise ValueError(f"mask_max must not be below mask_min={info.data['mask_min']:g}")
        return value


class PretrainContrastive(Pretraining):
    """Pretrain an encoder by telling positive from negative pairs of unlabelled slices."""

    pairs: PairKind
    num_pairs: NumPairs
    loss: Literal["ntxent", "margin"] = from_preset(
        "ntxent: the batch's other families are negatives; margin: drawn negative pairs"
    )
    temperature: Annotated[float, Field(description="of ntxent", gt=0, le=10)] = 0.2


class Suggest(Judged):
    """Suggest which slices to label: a few that stand for all, of as many patients."""

    pretrained: Annotated[
        str, Field(description="a pretraining's run id, a checkpoint file, or released", min_length=1)
    ]
    count: Annotated[int, Field(description="slices to suggest", ge=1, le=10_000)] = 12
    seed: Annotated[
        int, Field(description="other slices that stand for the rest follow from another", ge=0, lt=2**31)
    ] = 0
    output: Annotated[
        str, Field(description="a .csv file to fill in; a page of the slices appears beside it", pattern=r"\.csv$")
    ] = "suggested.csv"


class Finetune(Training):
    """Put a classifier on a pretrained encoder and train both on the labelled slices."""

    labels: Labels = "12"
    pretrained: Annotated[str, Field(description="a pretraining's run id, a checkpoint file, released or none")] = (
        "none"
    )
    learn_from: Literal["labels", "patients", "all", "twice"] = from_preset(
        "the labelled slices; all of the labelled patients; also those of patients that are likely of a class; and "
        "once more of those that a first training finds so"
    )
    freeze: Literal["none", "half", "all"] = from_preset("what of a pretrained encoder stays as it is")
    size: int = from_preset("side in pixels where nothing is pretrained", ge=32, le=256, multiple_of=16)
    width: int = from_preset("encoder's width where nothing is pretrained", ge=8, le=256, multiple_of=8)


class Evaluate(Judged):
    """Judge a classifier on test patients, beside controls that saw the same labels."""

    split: JudgedSplit = "patient"
    model: Annotated[
        str,
        Field(description="a fine-tuning's run id, a checkpoint file, a registry address or released", min_length=1),
    ]
    scratch: Annotated[str, Field(description="run id of the same network trained from scratch, as a control")] = ""


class Compare(Config):
    """Set evaluations beside the first of them, paired over the same patients."""

    runs: Annotated[
        str, Field(description="run ids of evaluations (or their fine-tunings), spaces between", min_length=1)
    ]

    @field_validator("runs")
    @classmethod
    def _several(cls, value: str) -> str:
        if len(set(value.split())) < 2:
            raise ValueError("give two different run ids or more")
        return value


class Register(Config):
    """Export the best evaluated classifier to ONNX, check it, and put it into the registry."""

    metric: Metric = "test/patient_balanced_accuracy"
    run: Annotated[str, Field(description="an evaluation's run id, instead of the best of the experiment")] = ""
    name: RegistryName = "brain-tumor-classifier"


class Promote(Config):
    """Put a registered version into service, if it is not clearly below the one that is."""

    name: RegistryName = "brain-tumor-classifier"
    version: Annotated[str, Field(description="its number; the challenger if not given", pattern="^[0-9]*$")] = ""
    metric: Metric = "test/patient_balanced_accuracy"


class Rollback(Config):
    """Put the version that was in service before back into service."""

    name: RegistryName = "brain-tumor-classifier"


class Lineage(Config):
    """Say where a model comes from: version, evaluation, runs, data, code."""

    model: Annotated[
        str, Field(description="registry address, run id (model_version of a score), a file or released", min_length=1)
    ] = "models:/brain-tumor-classifier@champion"


class Score(Config):
    """Class and probabilities for every picture of a folder, zip, file or table."""

    model: Annotated[str, Field(description="registry address, run id, .onnx file or released", min_length=1)] = (
        "models:/brain-tumor-classifier@champion"
    )
    input: Annotated[
        str,
        Field(
            description="a folder, zip or file of .mat, DICOM, NIfTI, PNG, JPEG or TIFF; a Parquet file with a column "
            "image of such files' bytes, or a Parquet or CSV file with their paths in a column path or file",
            min_length=1,
        ),
    ]
    output: Annotated[str, Field(description="a .csv or .parquet file", pattern=r"\.(csv|parquet)$")] = "scores.csv"


class Serve(Config):
    """Answer for single pictures over HTTP."""

    model: Annotated[str, Field(description="registry address, run id, .onnx file or released", min_length=1)] = (
        "models:/brain-tumor-classifier@champion"
    )
    host: Annotated[str, Field(description="address to listen at; anything but loopback opens it to others")] = (
        "127.0.0.1"
    )
    port: Annotated[int, Field(description="port to listen at", ge=1, le=65535)] = 8080


class Layout(Config):
    """Write a model repository for Triton and KServe, or add the model to one as its newest version."""

    model: Annotated[str, Field(description="registry address, run id, .onnx file or released", min_length=1)] = (
        "models:/brain-tumor-classifier@champion"
    )
    output: Annotated[str, Field(description="the repository's folder", min_length=1)] = "model-repository"


class Main(Data):
    """Everything: prepare, pretrain both ways, fine-tune, evaluate, register, score."""

    split: WholeSplit = "patient"
    labels: Labels = "12"
    preset: Preset = "quick"
    seed: Seed = 0
    pairs: PairKind
    num_pairs: NumPairs
    output: Annotated[str, Field(description="where the scores go", pattern=r"\.(csv|parquet)$")] = "scores.csv"


class Sweep(Data):
    """Search good parameters of a training: every trial is a child run, poor ones are ended early."""

    split: WholeSplit = "patient"
    preset: Preset = "quick"
    seed: Seed = 0
    stage: Annotated[
        Literal["pretrain-contrastive", "pretrain-encoder", "finetune"], Field(description="which training")
    ] = "pretrain-contrastive"
    search: Annotated[
        str,
        Field(
            description="what to try, such as learning_rate=1e-4..1e-2 log, temperature=0.1|0.2, width=16..64 step 16"
        ),
    ] = "learning_rate=3e-4..1e-2 log"
    fixed: Annotated[str, Field(description="other parameters of the training, such as epochs=10, labels=123")] = ""
    trials: Annotated[int, Field(description="trainings in all; more can be asked for later", ge=1, le=10_000)] = 20

    @model_validator(mode="after")
    def _fits(self) -> Self:
        fixed, searched = assignments(self.fixed, "fixed"), assignments(self.search, "search")
        for name in fixed | searched:
            if name in Sweep.model_fields:
                raise UserError(f"{name} is the same in every trial; give it as --{name.replace('_', '-')}")
            if name in fixed and name in searched:
                raise UserError(f"{name} is both searched and fixed; leave one out")
        self.example()
        return self

    def training(self, **values: Any) -> Training:
        """The parameters of a trial with these values."""
        own = {name: getattr(self, name) for name in (*Data.model_fields, "split", "preset", "seed")}
        return STAGES[self.stage].build(**own | assignments(self.fixed, "fixed") | values)  # type: ignore[return-value]

    @property
    def space(self) -> Space:
        """What is searched, every value checked."""
        return read_space(self.search, self.training)

    def example(self) -> Training:
        """One of the trainings that may be tried."""
        ends = {name: (own.low, own.high) if isinstance(own, Range) else own.values for name, own in self.space.items()}
        return build_either(self.training, ends, {})


STAGES: dict[str, type[Config]] = {
    "main": Main,
    "prepare": Prepare,
    "pretrain-encoder": PretrainEncoder,
    "pretrain-contrastive": PretrainContrastive,
    "suggest": Suggest,
    "finetune": Finetune,
    "sweep": Sweep,
    "evaluate": Evaluate,
    "compare": Compare,
    "register": Register,
    "promote": Promote,
    "rollback": Rollback,
    "lineage": Lineage,
    "score": Score,
    "serve": Serve,
    "layout": Layout,
}
