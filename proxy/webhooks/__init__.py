"""Who is told of jobs outside?"""
