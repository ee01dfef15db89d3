"""The verbs on a model: case, target, gradients, activations, infill, evaluator."""
