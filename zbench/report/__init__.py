"""From records to tables, plots and pages; measures nothing and stores no statistic."""
