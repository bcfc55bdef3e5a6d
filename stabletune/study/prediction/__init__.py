"""From short runs to the full horizon: how likely a setting is to stay free of spikes, and how low its loss gets."""
