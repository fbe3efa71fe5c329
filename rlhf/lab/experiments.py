"""The experiments of `rlhf lab`, in the order of the page; each is imported when it runs."""

EXPERIMENTS = {
    "variance": "rlhf.lab.tabular.variance",
    "stability": "rlhf.lab.tabular.stability",
    "chain_exploration": "rlhf.lab.tabular.chain_exploration",
    "gradient_noise": "rlhf.lab.language_model.gradient_noise",
    "hidden_phrase": "rlhf.lab.language_model.hidden_phrase",
}
"""Name and module; the module's `run(settings)` returns the section."""
