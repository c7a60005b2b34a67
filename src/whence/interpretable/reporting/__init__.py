"""What a page shows about the filters of a trained model: the nets are run and measured, and become plain data."""
