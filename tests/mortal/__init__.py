"""Kills threads that use semaphores and their like before each of their instructions."""
