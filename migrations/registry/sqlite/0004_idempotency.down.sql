DROP TABLE registry_answers;
