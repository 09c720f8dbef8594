"""nerfstudio's door: `ns-process-data … --motion-mask`, masks for finished datasets, a dataparser, methods with masked metrics."""
