"""The ``model`` section of a recipe, which the kinds define."""

from corelm.kinds.model_section import LayerConfig, ModelConfig

__all__ = ["LayerConfig", "ModelConfig"]
