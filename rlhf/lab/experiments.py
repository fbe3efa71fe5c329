"""The experiments of `rlhf lab`, in the order of the page; each is imported when it runs."""

EXPERIMENTS = {
    "variance": "rlhf.lab.variance",
    "stability": "rlhf.lab.stability",
    "chain_exploration": "rlhf.lab.chain_exploration",
    "gradient_noise": "rlhf.lab.gradient_noise",
    "hidden_phrase": "rlhf.lab.hidden_phrase",
}
"""Name and module; the module's `run(settings)` returns the section."""
