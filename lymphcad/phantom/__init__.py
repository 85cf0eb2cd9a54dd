"""A cohort of made CT images of the neck, whose likelihoods, and so whose ceiling, are known."""
