"""Ray: episode actors, the RLlib algorithm, whole runs."""
