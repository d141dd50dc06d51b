"""Training and evaluation, on Accelerate (extra ``train``)."""

from pylon_zoo.training.config import TrainingConfig
from pylon_zoo.training.finetune import Finetuned, finetune
from pylon_zoo.training.loop import TrainingResult, train

__all__ = ["Finetuned", "TrainingConfig", "TrainingResult", "finetune", "train"]
