"""Published measures of kinship, as their authors define them: comparators. They describe and never decide.

Each is a test without a p-value. ``Evidence.statistic`` is the score as published, larger for closer kin; ``effect`` is
the repaired form where one is known. What a paper does not say (unequal widths, for most) is not applied, with the
reason. P-values that authors claim stand in ``details["claimed_log10_p"]`` (phi_u, phi_match, mdir), for a benchmark to
judge.
"""
