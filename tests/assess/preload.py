"""What the processes of tests/assess/test_processes.py need, loaded once by the server that they are forked from."""

from bench.assess import assess as assess
from bench.assets.assets import Assets
from bench.model.lora import LoraModel
from bench.spec.run import LoraSpec, ModelSpec
from bench.training import training as training

# libraries load their modules when a model is first loaded
_TINY = ModelSpec(name="tiny")
LoraModel.load(Assets(quiet=True).model(_TINY).path, _TINY, LoraSpec(), "cpu")
