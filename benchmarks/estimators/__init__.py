"""xpnet's estimators beside scikit-learn's: scores and times to fit, at equal settings and over paired seeds."""
