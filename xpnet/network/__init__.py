"""Networks: layers, parameters, the Programs that they record, and the model file."""
