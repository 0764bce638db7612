"""What gbstats (GrowthBook) and confseq say of the rows on stdin: JSON in, JSON out."""
import json
import sys

try:
    import numpy as np
    from confseq.boundaries import normal_mixture_bound
    from gbstats.frequentist.tests import FrequentistConfig, TwoSidedTTest
    from gbstats.models.statistics import RatioStatistic, RegressionAdjustedStatistic, SampleMeanStatistic
except ImportError as error:
    print(json.dumps({"missing": str(error)}))
    sys.exit()

given = json.load(sys.stdin)
# Columns: saves, impressions, saves before.
arms = [np.array(arm) for arm in given["arms"]]


def mean(x):
    return SampleMeanStatistic(n=len(x), sum=x.sum(), sum_squares=(x * x).sum())


def ratio(rows):
    y, d = rows[:, 0], rows[:, 1]
    return RatioStatistic(n=len(rows), m_statistic=mean(y), d_statistic=mean(d), m_d_sum_of_products=(y * d).sum())


# Theta within the arms, as a difference between them must not enter it.
centred = [rows - rows.mean(axis=0) for rows in arms]
theta = sum((c[:, 0] * c[:, 2]).sum() for c in centred) / sum((c[:, 2] ** 2).sum() for c in centred)


def adjusted(rows):
    y, x = rows[:, 0], rows[:, 2]
    product = (y * x).sum()
    return RegressionAdjustedStatistic(
        n=len(rows), post_statistic=mean(y), pre_statistic=mean(x), post_pre_sum_of_products=product, theta=theta
    )


def told(statistic, kind):
    test = TwoSidedTTest(statistic(arms[0]), statistic(arms[1]), FrequentistConfig(difference_type=kind))
    if statistic is adjusted:
        # It makes its own theta, over both arms as if they were one.
        test.stat_a.theta = test.stat_b.theta = theta
    of = test.compute_result()
    return [float(of.expected), float(of.ci[0]), float(of.ci[1]), float(of.p_value)]


# The boundary on a sum with the variance v, and the clock that is v / rho.
alpha, best_at = given["alpha"], given["best_at"]
rho = best_at / (2 * np.log(1 / alpha) + np.log(1 + 2 * np.log(1 / alpha)))
variances = np.array(given["variances"])
bound = normal_mixture_bound(variances, alpha=alpha, v_opt=best_at, alpha_opt=alpha, is_one_sided=False)
print(json.dumps({
    "mean": told(lambda rows: mean(rows[:, 0]), "absolute"),
    "mean_lift": told(lambda rows: mean(rows[:, 0]), "relative"),
    "ratio": told(ratio, "absolute"),
    "ratio_lift": told(ratio, "relative"),
    "cuped": told(adjusted, "absolute"),
    "clocks": (variances / rho).tolist(),
    "boundaries": (bound / np.sqrt(variances)).tolist(),
}))
