"""Learn which money-laundering alerts to read first: alert scorer, alert ranker and cluster scorer."""

__version__ = "0.1.0"

import sys
from typing import TYPE_CHECKING

if sys.argv[:1] == ["-m"]:  # as a command, whose libraries are still to be loaded
    from .utils.commands import watch_memory
    watch_memory()

from loguru import logger

from .utils.lazy import offer

logger.disable("aml_miner")  # a library is silent; `setup_logging` lets it speak

__all__ = ["__version__"]

offer(__name__, {  # name: module
    "FeatureBuilder": "features.feature_builder",
    "BatchDataLoader": "batches.loader",
    "AlertScorerModel": "models.scoring_model",
    "AlertRankerModel": "models.scoring_model",
    "ClusterScorerModel": "models.scoring_model",
    "train_alert_scorer": "training.train_scorer",
    "train_alert_ranker": "training.train_ranker",
    "train_cluster_scorer": "training.train_cluster_scorer",
    "prepare_training_data": "training.train_scorer",
    "prepare_ranking_data": "training.train_ranker",
    "prepare_cluster_data": "training.train_cluster_scorer",
    "HyperparameterTuner": "tuning.tuner",
    "score_batch": "scoring.score_batch",
    "convert": "conversion.convert",
    "load_config": "config.model_config",
    "compute_ndcg": "training.train_ranker",
    "setup_logging": "utils.progress",
})

if TYPE_CHECKING:  # the same names, for editors and type checkers
    from .batches.loader import BatchDataLoader as BatchDataLoader
    from .config.model_config import load_config as load_config
    from .conversion.convert import convert as convert
    from .features.feature_builder import FeatureBuilder as FeatureBuilder
    from .models.scoring_model import AlertRankerModel as AlertRankerModel
    from .models.scoring_model import AlertScorerModel as AlertScorerModel
    from .models.scoring_model import ClusterScorerModel as ClusterScorerModel
    from .scoring.score_batch import score_batch as score_batch
    from .training.train_cluster_scorer import prepare_cluster_data as prepare_cluster_data
    from .training.train_cluster_scorer import train_cluster_scorer as train_cluster_scorer
    from .training.train_ranker import compute_ndcg as compute_ndcg
    from .training.train_ranker import prepare_ranking_data as prepare_ranking_data
    from .training.train_ranker import train_alert_ranker as train_alert_ranker
    from .training.train_scorer import prepare_training_data as prepare_training_data
    from .training.train_scorer import train_alert_scorer as train_alert_scorer
    from .tuning.tuner import HyperparameterTuner as HyperparameterTuner
    from .utils.progress import setup_logging as setup_logging
