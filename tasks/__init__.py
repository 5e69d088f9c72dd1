"""One stage of the pipeline each: a decorator and a call into the library."""
