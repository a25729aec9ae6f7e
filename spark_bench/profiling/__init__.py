"""What a step of pretraining costs, part by part, beside other codes and beside what the device can do."""
