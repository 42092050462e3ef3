"""The pipeline: stages, artifacts, identity and provenance, checkpoints."""
