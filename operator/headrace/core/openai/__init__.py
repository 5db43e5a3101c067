"""OpenAI's Files and Batches, as another way to say InferenceBatch: each request becomes one, each answer is read off one."""
