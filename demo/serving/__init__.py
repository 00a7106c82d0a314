"""Who computes, and in which order: requests, the queue, fairness, runners, the model in memory.

Imports `hardening`, `settings` and `maskgit_core`; never `runs` or `tabs`, which build on it. A
visitor's wish is one frozen `request.Request`, and one `jobs.Job` while it is computed. One more
way to compute is one file with a class that does what `runner.Runner` says, and one line in
`runner.make_runner`.
"""
